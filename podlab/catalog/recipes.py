"""How a model is served on given GPUs: recipes, from recipes.toml beside this file and from the user's models.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from podlab.catalog import schema
from podlab.catalog.gpus import gpu_types
from podlab.catalog.schema import Field
from podlab.errors import BadSettings, StateDamaged

FILE = "recipes.toml"
_SCHEMA: dict[str, Field] = {
    "model": Field(str, 'a model\'s id, such as "Qwen/Qwen3-8B"'),
    "engine": Field(str, 'an engine, such as "vllm"'),
    "gpus": schema.count("how many GPUs, such as 2"),
    "types": schema.words('kinds or classes of gpus.toml, such as ["H100", "24GB"]'),
    "nodes": schema.count("how many machines the GPUs are spread over, such as 2"),
    "tensor_parallel": schema.count("a number of GPUs, such as 2"),
    "data_parallel": schema.count("a number of replicas, such as 8"),
    "expert_parallel": Field(bool, "true or false"),
    "context": schema.count("a number of tokens, such as 32768"),
    "memory_ratio": schema.number("a share of the GPU's memory, such as 0.95", most=1),
    "args": schema.words('the engine\'s own arguments, such as ["--async-scheduling"]'),
    "env": schema.pairs('variables of its environment, such as { VLLM_USE_DEEP_GEMM = "1" }'),
    "min_version": Field(str, 'the engine\'s oldest version that can, such as "0.11.0"'),
    "notes": Field(str, "one line of text in quotes"),
    "corrects": Field(str, "one line that says what was wrong with it elsewhere"),
    "source": Field(str, "the address it is from"),
}


@dataclass(frozen=True)
class Recipe:
    """A model on `gpus` GPUs of one of the `types` (none: any). `context` None: the model's own."""

    model: str
    gpus: int
    engine: str = "vllm"
    types: tuple[str, ...] = ()
    nodes: int = 1
    """More than one machine: it is listed with its reason, and never started."""
    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    context: int | None = None
    memory_ratio: float | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    min_version: str | None = None
    notes: str = ""
    corrects: str = ""
    """What an older registry said that could not work."""
    source: str = ""

    @property
    def title(self) -> str:
        """'2x H100/H200': how many of what."""
        return f"{self.gpus}x {'/'.join(self.types) or 'any GPU'}"


@cache
def packaged() -> tuple[Recipe, ...]:
    """The recipes that ship with podlab, in the order of their file."""
    text = (resources.files("podlab.catalog") / FILE).read_text(encoding="utf-8")
    where = f"podlab's own {FILE}"
    try:
        return read(schema.document(text, where, {"recipes": list}, "Each recipe is a table: [[recipes]]"), where)
    except BadSettings as error:
        raise StateDamaged(f"podlab is not installed whole: {error.message}", hint="Install it again.") from error


def read(document: Mapping[str, Any], where: str) -> tuple[Recipe, ...]:
    """The recipes of a document. Raises BadSettings naming field, value and fix."""
    return tuple(
        _recipe(fields, f"{where}, [[recipes]] {number}")
        for number, fields in enumerate(document.get("recipes", ()), start=1)
    )


def _recipe(fields: Any, at: str) -> Recipe:
    given = schema.checked(fields, _SCHEMA, at, needed=("model", "gpus"))
    at = f"{at} of {given['model']}"
    known = {name for kind in gpu_types() for name in (kind.name, *kind.classes)}
    for name in given.get("types", ()):
        if name not in known:
            raise BadSettings(
                f"{at}: there is no GPU {name!r}.", hint=f"Kinds and classes: {', '.join(sorted(known))}."
            )
    gpus, replicas = given["gpus"], given.get("data_parallel", 1)
    if gpus % replicas or gpus != replicas * given.setdefault("tensor_parallel", gpus // replicas):
        raise BadSettings(
            f"{at}: {gpus} GPUs are not tensor_parallel times data_parallel.", hint="Leave tensor_parallel out."
        )
    for name in ("types", "args"):
        given[name] = tuple(given.get(name, ()))
    return Recipe(**(given | {"env": tuple(given.get("env", {}).items())}))
