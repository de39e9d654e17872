"""Recipes: judged by the arithmetic on every GPU they name, and checked by their schema."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from podlab.catalog import recipes, schema
from podlab.catalog.catalog import entries, find, recipes_of
from podlab.catalog.fit import DEFAULT_MEMORY_RATIO, Wish, fit
from podlab.catalog.geometry import GpuRoom
from podlab.catalog.gpus import GpuType, gpu_types
from podlab.catalog.planner import _with_flags
from podlab.catalog.recipes import Recipe
from podlab.errors import BadSettings

KINDS = [
    (recipe, kind) for recipe in recipes.packaged() for kind in gpu_types()
    if not recipe.types or kind.is_one_of(recipe.types)
]  # fmt: skip


@pytest.mark.parametrize("recipe, kind", KINDS, ids=lambda value: getattr(value, "name", "") or value.model)
def test_no_recipe_is_for_gpus_it_cannot_fit_on(recipe: Recipe, kind: GpuType) -> None:
    if recipe.nodes > 1:
        pytest.skip(f"needs {recipe.nodes} machines; it is listed and never started")
    geometry = find(recipe.model).geometry
    assert geometry is not None, "a recipe is for a model whose shape is in the catalog, so that it can be judged"
    rooms = [GpuRoom(index, kind.name, kind.memory_bytes, kind.memory_bytes) for index in range(recipe.gpus)]
    wish = Wish(
        context=recipe.context, tensor_parallel=recipe.tensor_parallel, data_parallel=recipe.data_parallel,
        expert_parallel=recipe.expert_parallel, memory_ratio=recipe.memory_ratio or DEFAULT_MEMORY_RATIO,
    )  # fmt: skip

    verdict = fit(geometry, rooms, _with_flags(wish, recipe.args))

    assert verdict.fits is True, verdict.reason


def test_recipes_are_for_models_of_the_catalog_and_stand_with_them() -> None:
    ids = {entry.id for entry in entries()}
    for recipe in recipes.packaged():
        assert recipe.model in ids
        assert recipe in recipes_of(find(recipe.model))
        assert "VLLM_ATTENTION_BACKEND" not in dict(recipe.env), "vLLM no longer reads it"


@dataclass(frozen=True)
class Pi:
    """A configuration of pi pods' registry (badlogic/pi-mono, packages/pods/src/models.json at 83378aad)."""

    model: str
    gpus: int
    types: tuple[str, ...]
    now: tuple[int, str] | None = None
    """Where it could not fit: how many of what it takes instead."""


PI = (
    Pi("Qwen/Qwen2.5-Coder-32B-Instruct", 1, ("H100", "H200")),
    Pi("Qwen/Qwen2.5-Coder-32B-Instruct", 2, ("H100", "H200")),
    Pi("Qwen/Qwen3-Coder-30B-A3B-Instruct", 1, ("H100", "H200")),
    Pi("Qwen/Qwen3-Coder-30B-A3B-Instruct", 2, ("H100", "H200")),
    Pi("Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 1, ("H100", "H200")),
    Pi("Qwen/Qwen3-Coder-480B-A35B-Instruct", 8, ("H200",)),
    Pi("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", 8, ("H200", "H20")),
    Pi("openai/gpt-oss-20b", 1, ("H100", "H200")),
    Pi("openai/gpt-oss-20b", 1, ("B200",)),
    Pi("openai/gpt-oss-120b", 1, ("H100", "H200")),
    Pi("openai/gpt-oss-120b", 2, ("H100", "H200")),
    Pi("openai/gpt-oss-120b", 4, ("H100", "H200")),
    Pi("openai/gpt-oss-120b", 8, ("H100", "H200")),
    Pi("zai-org/GLM-4.5", 16, ("H100",)),
    Pi("zai-org/GLM-4.5", 8, ("H200",)),
    Pi("zai-org/GLM-4.5-FP8", 8, ("H100",)),
    Pi("zai-org/GLM-4.5-FP8", 4, ("H200",)),
    Pi("zai-org/GLM-4.5-Air-FP8", 2, ("H100",)),
    Pi("zai-org/GLM-4.5-Air-FP8", 1, ("H200",)),
    Pi("zai-org/GLM-4.5-Air", 2, ("H100", "H200"), now=(4, "H100")),
    Pi("zai-org/GLM-4.5-Air", 1, ("H200",), now=(2, "H200")),
    Pi("moonshotai/Kimi-K2-Instruct", 16, ("H200",)),
)


def recipes_for(model: str, gpus: int, kind: str) -> list[Recipe]:
    (meant,) = (each for each in gpu_types() if each.name == kind)
    return [r for r in recipes.packaged() if r.model == model and r.gpus == gpus and meant.is_one_of(r.types)]


@pytest.mark.parametrize("pi", PI, ids=lambda pi: f"{pi.model} {pi.gpus}x {'/'.join(pi.types)}")
def test_each_configuration_of_pi_is_there_or_corrected(pi: Pi) -> None:
    if pi.now is not None:
        found = recipes_for(pi.model, *pi.now)
        assert found
        assert all(recipe.corrects for recipe in found)
        return
    for kind in pi.types:
        found = recipes_for(pi.model, pi.gpus, kind)
        assert found, kind
        assert all(recipe.nodes > 1 for recipe in found) == (pi.gpus > 8), "more than one machine holds is not started"


def test_pi_had_12_models_and_22_configurations() -> None:
    assert len(PI) == 22
    assert len({pi.model for pi in PI}) == 12


@pytest.mark.parametrize(
    "fields, said, hint",
    [
        ({"gpus": 1}, "model is missing", "Qwen/Qwen3-8B"),
        ({"model": "a/b"}, "gpus is missing", "such as 2"),
        ({"model": "a/b", "gpus": 0}, "gpus is 0", "such as 2"),
        ({"model": "a/b", "gpus": True}, "gpus is True", "such as 2"),
        ({"model": "a/b", "gpus": 1, "types": ["H1000"]}, "no GPU 'H1000'", "H100"),
        ({"model": "a/b", "gpus": 3, "data_parallel": 2}, "3 GPUs are not", "tensor_parallel"),
        ({"model": "a/b", "gpus": 2, "tensor_parallel": 4}, "2 GPUs are not", "tensor_parallel"),
        ({"model": "a/b", "gpus": 1, "memory_ratio": 1.5}, "memory_ratio is 1.5", "0.95"),
        ({"model": "a/b", "gpus": 1, "env": {"A": 1}}, "env is {'A': 1}", "VLLM_USE_DEEP_GEMM"),
        ({"model": "a/b", "gpus": 1, "arg": []}, "no field 'arg'", "'args'"),
        ("x", "is 'x'", "table"),
    ],
)
def test_a_damaged_recipe_names_field_value_and_fix(fields: object, said: str, hint: str) -> None:
    with pytest.raises(BadSettings) as caught:
        recipes.read({"recipes": [fields]}, "here.toml")
    assert said in caught.value.message
    assert "here.toml, [[recipes]] 1" in caught.value.message
    assert hint in caught.value.hint


def test_a_document_with_something_else_in_it_is_refused() -> None:
    with pytest.raises(BadSettings) as caught:
        schema.document("[x]", "here.toml", {"recipes": list}, "Write [[recipes]].")
    assert "'x'" in caught.value.message
