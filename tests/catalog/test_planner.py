"""The planner: which GPUs, cut how, with which context and arguments. The arithmetic it asks is the real one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podlab.catalog import arguments, choice, memory
from podlab.catalog.catalog import ModelEntry, find, recipes_of
from podlab.catalog.families import parsers_of
from podlab.catalog.fit import FitResult, Wish, default_wish
from podlab.catalog.fit_file import HostRoom
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.gpus import parse_gpus
from podlab.catalog.planner import ServePlan, older, plan
from podlab.catalog.recipes import Recipe
from podlab.catalog.sources import HubRepo
from podlab.catalog.wishes import ServeWish, parse_gpu_choice
from podlab.engines import engine_named
from podlab.engines.base import Environment, PodFacts, ServeSpec
from podlab.errors import BadArgument, EngineUnavailable

GB = 10**9
SMALL = "Qwen/Qwen3-8B"
CODER = "Qwen/Qwen3-Coder-30B-A3B-Instruct"


def rooms_of(text: str, *, used_gb: Sequence[float] = (), endpoints: Sequence[int] = ()) -> tuple[GpuRoom, ...]:
    found = parse_gpus(text)
    return tuple(
        replace(
            room,
            free_bytes=room.total_bytes - int((list(used_gb) + [0] * 99)[room.index] * GB),
            endpoints=(list(endpoints) + [0] * 99)[room.index],
        )
        for room in found
    )


def planned(
    model: str, rooms: Sequence[GpuRoom], wish: ServeWish | None = None, version: str | None = None
) -> ServePlan:
    entry = find(model)
    return plan(entry, entry.geometry, recipes_of(entry), rooms, wish or ServeWish(), version=version)


def fits_from(count: int) -> object:
    """An arithmetic in which a model fits on that many GPUs or more."""

    def judge(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish) -> FitResult:
        return FitResult(len(gpus) >= count, f"{len(gpus)} are too few", wish, context=8192)

    return judge


NOBODYS = ModelEntry("mine", HubRepo("a/b"), engine="vllm")


def test_the_smallest_recipe_is_taken_not_the_largest() -> None:
    found = planned(CODER, rooms_of("8x H200"))
    assert (found.gpus, found.tensor_parallel) == ((0,), 1)
    assert found.recipe is not None and found.recipe.gpus == 1
    assert found.fit is not None and found.fit.fits


def test_the_freest_gpus_are_taken_and_named_to_the_engine() -> None:
    found = planned(CODER, rooms_of("4x H100", used_gb=[40, 0, 70, 0], endpoints=[1, 0, 1, 0]), ServeWish(gpus=2))
    assert found.gpus == (1, 3)
    assert dict(found.env)["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert dict(found.env)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert found.tensor_parallel == 2
    assert any("GPU 3" in reason and "no endpoint" in reason for reason in found.reasons)


def test_memory_that_others_use_is_left_to_them() -> None:
    found = planned(SMALL, rooms_of("H100", used_gb=[40]))
    assert found.memory_ratio is not None and found.memory_ratio < 0.55
    assert any("free" in reason and "instead of" in reason for reason in found.reasons)


def test_one_kind_of_gpu_works_together_unless_they_were_named() -> None:
    mixed = rooms_of("RTX 4090, L40S, RTX 4090")
    found = planned("Qwen/Qwen3.6-27B-FP8", mixed)
    assert found.gpus == (1,), "one L40S is fewer than two RTX 4090"
    assert planned("Qwen/Qwen3.6-27B-FP8", mixed, ServeWish(gpus=2)).gpus == (0, 2)
    with pytest.raises(BadArgument) as caught:
        planned(SMALL, mixed, ServeWish(gpus=3))
    assert "--gpus 0,1" in caught.value.hint
    named = planned(SMALL, mixed, ServeWish(gpus=(0, 1)))
    assert named.gpus == (0, 1)
    assert any("several kinds" in reason for reason in named.reasons)


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(BadArgument, match="asked for, and this pod has 2"):
        planned(SMALL, rooms_of("2x H100"), ServeWish(gpus=4))
    with pytest.raises(BadArgument) as caught:
        planned(SMALL, rooms_of("2x H100"), ServeWish(gpus=(0, 5)))
    assert "0, 1" in caught.value.hint


def test_what_does_not_fit_is_refused_with_the_nearest_that_does() -> None:
    with pytest.raises(EngineUnavailable) as caught:
        planned("zai-org/GLM-4.5-Air", rooms_of("H200"))
    assert "weights" in caught.value.message
    assert "--force" in caught.value.hint
    assert '"2xH200" on another pod' in caught.value.hint


def test_force_starts_what_does_not_fit_and_says_so() -> None:
    found = planned("zai-org/GLM-4.5-Air", rooms_of("H200"), ServeWish(force=True))
    assert found.gpus == (0,)
    assert any(reason.startswith("Forced") for reason in found.reasons)


def test_a_context_that_was_asked_for_is_never_shortened() -> None:
    found = planned(CODER, rooms_of("2x H100"), ServeWish(context=262144))
    assert (found.context, found.gpus) == (262144, (0, 1)), "one H100 does not hold it, two do"
    with pytest.raises(EngineUnavailable, match="tokens"):
        planned(SMALL, rooms_of("RTX 4090"), ServeWish(context=40960))


def test_a_context_nobody_asked_for_is_as_long_as_fits() -> None:
    found = planned("meta-llama/Llama-3.1-8B-Instruct", rooms_of("RTX A4000, RTX A4000"))
    assert found.context is not None and 16384 <= found.context < 131072
    assert any("tokens" in reason for reason in found.reasons)


def test_without_a_recipe_the_smallest_power_of_two_that_fits() -> None:
    eight = rooms_of("8x L4")
    found = plan(NOBODYS, Geometry(attention_heads=32), (), eight, judge=fits_from(3))  # type: ignore[arg-type]
    assert found.gpus == (0, 1, 2, 3)
    assert found.tensor_parallel == 4
    assert len(found.refused) == 2


def test_heads_that_do_not_divide_become_replicas() -> None:
    found = plan(NOBODYS, Geometry(attention_heads=14), (), rooms_of("4x L4"), ServeWish(gpus=4), judge=fits_from(1))  # type: ignore[arg-type]
    assert (found.tensor_parallel, found.data_parallel) == (2, 2)


def test_what_nobody_knows_the_shape_of_is_not_refused_but_said() -> None:
    found = plan(NOBODYS, None, (), rooms_of("2x L4"))
    assert found.gpus == (0,)
    assert found.fit is None
    assert any("not judged" in reason for reason in found.reasons)


def test_recipes_for_other_machines_are_refused_with_the_reason() -> None:
    found = planned("moonshotai/Kimi-K2-Instruct", rooms_of("8x B200"))
    assert found.recipe is not None and found.recipe.gpus == 8
    assert any("2 machines" in line for line in found.refused)
    with pytest.raises(EngineUnavailable):
        planned("moonshotai/Kimi-K2-Instruct", rooms_of("8x H100"))


def test_data_and_expert_parallel_come_from_the_recipe() -> None:
    found = planned("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", rooms_of("8x H200"))
    assert (found.tensor_parallel, found.data_parallel, found.expert_parallel) == (1, 8, True)
    assert dict(found.env)["VLLM_USE_DEEP_GEMM"] == "1"
    assert dict(found.env)["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"


@pytest.mark.parametrize("form", [["--tensor-parallel-size", "2"], ["--tensor-parallel-size=2"], ["-tp", "2"],
                                  ["--tensor_parallel_size", "2"]])  # fmt: skip
def test_raw_arguments_decide_how_many_gpus(form: list[str]) -> None:
    found = planned(CODER, rooms_of("4x H200"), ServeWish(extra=tuple(form)))
    assert len(found.gpus) == found.tensor_parallel == 2
    assert found.args[-len(form) :] == tuple(form)


@pytest.mark.parametrize(
    "gpus, args, split",
    [
        (None, "--pipeline-parallel-size 2", (1, 1, 2)),
        (2, "-pp 2", (1, 1, 2)),
        (None, "-tp 2 --pipeline_parallel_size=2", (2, 1, 2)),
        (4, "-dp 2", (2, 2, 1)),
        (4, "-tp 2", (2, 2, 1)),
        (None, "-tp=2 -dp=2 -pp=2", (2, 2, 2)),
        (4, "--data_parallel_size 2 --pipeline-parallel-size 2", (1, 2, 2)),
    ],
)
def test_all_that_multiplies_gpus_is_counted(gpus: int | None, args: str, split: tuple[int, int, int]) -> None:
    found = planned(CODER, rooms_of("8x H200"), ServeWish(gpus=gpus, extra=tuple(args.split())))
    assert (found.tensor_parallel, found.data_parallel, found.pipeline_parallel) == split
    assert len(found.gpus) == prod(split)
    assert found.args[-len(args.split()) :] == tuple(args.split())


def test_a_recipe_that_says_something_else_than_was_asked_is_not_taken() -> None:
    found = planned("openai/gpt-oss-120b", rooms_of("8x H100"), ServeWish(extra=("--data-parallel-size", "2")))
    assert found.recipe is None
    assert found.data_parallel == 2
    assert len(found.gpus) == found.tensor_parallel * 2
    assert planned("openai/gpt-oss-120b", rooms_of("8x H100"), ServeWish(extra=("-dp", "1"))).recipe is not None


def test_stages_are_not_judged_and_that_is_said() -> None:
    found = planned(CODER, rooms_of("2x H200"), ServeWish(extra=("-pp", "2")))
    assert found.fit is None
    assert any("not judged" in reason and "stages" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    "gpus, args, needed",
    [(2, "-tp 4", "4"), ((0, 3), "-tp 2 -dp 2", "4"), (3, "-pp 2", "a multiple of 2"), (8, "-tp 2 -dp 2", "4")],
)
def test_options_that_contradict_each_other_are_named_with_the_fix(
    gpus: int | tuple[int, ...], args: str, needed: str
) -> None:
    with pytest.raises(BadArgument) as caught:
        planned(CODER, rooms_of("8x H200"), ServeWish(gpus=gpus, extra=tuple(args.split())))
    shown = gpus if isinstance(gpus, int) else "0,3"
    assert caught.value.message.startswith(f"--gpus {shown} is ")
    assert "-parallel-size" in caught.value.message and caught.value.message.endswith(f"needs {needed}.")
    assert f"--gpus {needed.rpartition(' ')[2]}" in caught.value.hint and "leave" in caught.value.hint


def test_that_the_engines_own_option_wins_is_said() -> None:
    wish = ServeWish(context=4096, memory_ratio=0.5, extra=("--max-model-len", "8192", "--gpu-memory-utilization=0.9"))
    found = planned(SMALL, rooms_of("H100"), wish)
    assert (found.context, found.memory_ratio) == (8192, 0.9)
    assert any(reason.startswith("--max-model-len 8192 wins over --context 4096") for reason in found.reasons)
    assert any(reason.startswith("--gpu-memory-utilization 0.9 wins over --memory 0.5") for reason in found.reasons)
    same = planned(SMALL, rooms_of("H100"), ServeWish(context=8192, extra=("--max-model-len", "8192")))
    assert not any("wins over" in reason for reason in same.reasons)


def test_a_gpu_on_which_a_server_of_ours_still_loads_is_left_to_it() -> None:
    """It has taken nothing yet of the memory it will take."""
    first = planned(SMALL, rooms_of("2x H100"))
    pinned = [int(index in first.gpus) for index in (0, 1)]
    second = planned(SMALL, rooms_of("2x H100", used_gb=[0, 8], endpoints=pinned))
    assert (first.gpus, second.gpus) == ((0,), (1,))
    assert not any("shared" in reason for reason in second.reasons)

    third = planned(SMALL, rooms_of("2x H100", used_gb=[0, 80], endpoints=pinned))
    assert third.gpus == (0,), "the other is full"
    assert any("GPU 0 is shared with an endpoint of ours" in reason for reason in third.reasons)
    named = planned(SMALL, rooms_of("2x H100", endpoints=pinned), ServeWish(gpus=(0,)))
    assert any("GPU 0 is shared" in reason and "asked for" in reason for reason in named.reasons)
    two = planned(CODER, rooms_of("3x H100", used_gb=[0, 5, 5], endpoints=[1, 0, 0]), ServeWish(gpus=2))
    assert two.gpus == (1, 2)


def test_so_many_requests_at_the_same_time_have_to_fit() -> None:
    wish = ServeWish(context=40960, concurrency=64)
    with pytest.raises(EngineUnavailable, match="not 64") as caught:
        planned(SMALL, rooms_of("H100"), wish)
    assert "--slots" in caught.value.hint and "--concurrency" not in caught.value.hint


@pytest.mark.parametrize("engine", ["sglang", "tgi", "trtllm"])
def test_other_engines_do_not_get_what_the_catalog_says_for_vllm(engine: str) -> None:
    entry = replace(find("moonshotai/Kimi-K2.6"), geometry=None)
    assert entry.min_version and entry.tool_parser
    found = plan(entry, None, recipes_of(entry), rooms_of("8x V100 32GB"), engine=engine, version="0.1")
    assert (found.args, found.recipe) == ((), None)
    assert plan(entry, None, recipes_of(entry), (), engine=engine, version="0.1").args == ()


def test_other_engines_own_names_of_the_cut_are_understood() -> None:
    for flag in ("--tp-size", "--tp", "--num-shard"):
        found = plan(find(CODER), None, (), rooms_of("4x H200"), ServeWish(extra=(flag, "2")), engine="sglang")
        assert len(found.gpus) == found.tensor_parallel == 2


@pytest.mark.parametrize(
    "engine, context, share",
    [
        ("vllm", "--max-model-len", "--gpu-memory-utilization"),
        ("sglang", "--context-length", "--mem-fraction-static"),
        ("sglang", "--context_length", "--mem_fraction_static"),
        ("tgi", "--max-total-tokens", "--cuda-memory-fraction"),
        ("trtllm", "--max_seq_len", "--kv_cache_free_gpu_memory_fraction"),
        ("trtllm", "--max_seq_len", "--free_gpu_memory_fraction"),
    ],
)
@pytest.mark.parametrize("form", ["{} {}", "{}={}"])
def test_the_plan_and_the_command_agree_on_what_the_engines_own_options_say(
    engine: str, context: str, share: str, form: str
) -> None:
    """Read under the engine's names, judged, and given to the engine once and as the person wrote them."""
    extra = (*form.format(context, 8192).split(), *form.format(share, 0.8).split())
    entry = find(SMALL)
    wish = ServeWish(context=4096, memory_ratio=0.5, extra=extra)
    found = plan(entry, entry.geometry, (), rooms_of("H100"), wish, engine=engine)
    assert (found.context, found.memory_ratio) == (8192, 0.8)
    assert found.fit is not None and (found.fit.context, found.fit.wish.memory_ratio) == (8192, 0.8)
    assert f"{context} 8192 wins over --context 4096: the engine's own option counts." in found.reasons
    assert f"{share} 0.8 wins over --memory 0.5: the engine's own option counts." in found.reasons
    own = Environment(engine, "1.0", "/v/bin/python", ("/v/bin/server",), adopted=True)
    spec = ServeSpec("small", model_path="/m", environment=own, context=found.context, memory_ratio=found.memory_ratio,
                     gpus=found.gpus, extra=found.args, force=True)  # fmt: skip
    argv = engine_named(engine).steps(spec, PodFacts("Linux", "x86_64", (3, 11), gpus=1))[-1].argv
    assert argv[-len(extra) :] == extra
    shown = " ".join(argv).replace("_", "-")
    for flag in (context, share):
        assert shown.count(flag.strip("-").replace("_", "-").removeprefix("kv-cache-")) == 1, argv


@pytest.mark.parametrize(
    "engine, extra",
    [("sglang", "--context-length 262144"), ("tgi", "--max-total-tokens=262144"), ("trtllm", "--max_seq_len 262144")],
)
def test_a_context_that_another_engines_option_asks_for_has_to_fit(engine: str, extra: str) -> None:
    entry = find(CODER)
    with pytest.raises(EngineUnavailable, match="262144|256k"):
        plan(entry, entry.geometry, (), rooms_of("H100"), ServeWish(extra=tuple(extra.split())), engine=engine)


def test_what_belongs_to_another_engine_is_not_read() -> None:
    entry = find(SMALL)
    wish = ServeWish(context=4096, extra=("--max-model-len", "8192"))
    assert plan(entry, entry.geometry, (), rooms_of("H100"), wish, engine="sglang").context == 4096


def test_the_share_of_trtllm_is_of_what_the_weights_leave() -> None:
    """30% of the memory does not hold the weights; 30% of what they leave is a cache."""
    entry, small = find(SMALL), ("--kv_cache_free_gpu_memory_fraction", "0.3")
    found = plan(entry, entry.geometry, (), rooms_of("L4"), ServeWish(context=4096, extra=small), engine="trtllm")
    assert found.memory_ratio == 0.3 and found.fit is not None and found.fit.fits
    (part,) = found.fit.gpus
    assert 0 < part.cache_bytes < part.weights_bytes
    with pytest.raises(EngineUnavailable, match="30% of GPU"):
        plan(entry, entry.geometry, (), rooms_of("L4"),
             ServeWish(context=4096, extra=("--mem-fraction-static", "0.3")), engine="sglang")  # fmt: skip


def test_a_prompt_leaves_room_for_an_answer() -> None:
    """TGI does not start where --max-input-tokens is not below --max-total-tokens."""
    entry = find(SMALL)

    def context(text: str, **wish: int) -> int | None:
        asked = ServeWish(extra=tuple(text.split()), **wish)  # type: ignore[arg-type]
        return plan(entry, entry.geometry, (), rooms_of("L4"), asked, engine="tgi").context

    assert context("--max-input-tokens 2048", context=4096) == 4096
    assert (context("--max-input-tokens 17000") or 0) > 17000
    for text in ("--max-input-tokens 4096", "--max-input-length=5000"):
        with pytest.raises(BadArgument, match="leaves no token for an answer in a context of 4096"):
            context(text, context=4096)


@pytest.mark.parametrize("total", [0, 1, memory.DRIVER_BYTES])
def test_a_card_that_claims_next_to_no_memory_holds_nothing(total: int) -> None:
    with pytest.raises(EngineUnavailable):
        planned(SMALL, [GpuRoom(0, "NVIDIA L4", total, total)])


def test_the_planner_and_the_verdict_cut_a_model_the_same_way() -> None:
    """By its attention heads, its key and value heads, and the blocks its experts are quantised in."""
    for shape in (
        Geometry(attention_heads=48, kv_heads=4),
        Geometry(attention_heads=32, kv_heads=8, expert_width=768, quantization_block=128),
    ):
        six = rooms_of("6x L4")
        found = plan(NOBODYS, shape, (), six, ServeWish(gpus=6), judge=fits_from(1))  # type: ignore[arg-type]
        wanted = default_wish(shape, six, Wish())
        assert (found.tensor_parallel, found.data_parallel) == (wanted.tensor_parallel, wanted.data_parallel)


def test_raw_context_and_memory_are_what_is_judged() -> None:
    found = planned(
        CODER, rooms_of("H100"), ServeWish(extra=("--max-model-len", "8k", "--gpu-memory-utilization=0.85"))
    )
    assert (found.context, found.memory_ratio) == (8192, 0.85)
    with pytest.raises(EngineUnavailable):
        planned(CODER, rooms_of("H100"), ServeWish(extra=("--max-model-len=262144",)))
    assert planned(CODER, rooms_of("H100"), ServeWish(extra=("--max-model-len=262144", "--kv-cache-dtype", "fp8"))).fit


def test_a_model_too_new_for_the_engine_is_refused_before_anything_else() -> None:
    with pytest.raises(EngineUnavailable, match=r"needs vllm 0\.25\.0"):
        planned("moonshotai/Kimi-K2.6", rooms_of("8x H200"), version="0.24.1")
    assert planned("moonshotai/Kimi-K2.6", rooms_of("8x H200"), version="0.25.0").gpus == tuple(range(8))
    assert planned("moonshotai/Kimi-K2.6", rooms_of("8x H200"), version="nightly").gpus == tuple(range(8))


@pytest.mark.parametrize(
    "version, least, wanted",
    [("0.9.2", "0.10.0", True), ("0.10.0", "0.10.0", False), ("0.32.0+cpu", "0.32.0", False), ("nightly", "9", False)],
)
def test_versions_are_compared_by_number(version: str, least: str, wanted: bool) -> None:
    assert older(version, least) is wanted


def test_old_gpus_compute_in_half_precision() -> None:
    found = planned(SMALL, rooms_of("2x V100 32GB"))
    assert found.args[:3][-1] and "--dtype" in found.args
    assert "--dtype" not in planned(SMALL, rooms_of("RTX 3090")).args
    own = planned(SMALL, rooms_of("2x V100 32GB"), ServeWish(extra=("--dtype", "float32")))
    assert own.args.count("--dtype") == 1


def test_of_a_cpus_memory_half_of_what_is_free_is_taken() -> None:
    """vLLM's own share, 92 %, is refused by vLLM itself on most computers that somebody works at."""
    room = HostRoom(16 << 30, 10 << 30)
    found = plan(find("Qwen/Qwen3-0.6B"), None, (), (), host=room)
    assert found.memory_ratio == 0.31
    assert any("31%" in reason for reason in found.reasons)
    full = plan(find("Qwen/Qwen3-0.6B"), None, (), (), host=HostRoom(16 << 30, 3 << 30))
    assert full.memory_ratio == 0.16, "its weights would leave nothing of a half"
    assert plan(find("Qwen/Qwen3-0.6B"), None, (), ()).memory_ratio is None
    assert plan(find("Qwen/Qwen3-0.6B"), None, (), (), ServeWish(memory_ratio=0.4), host=room).memory_ratio == 0.4
    own = ServeWish(extra=("--kv-cache-memory-bytes", "1G"))
    assert plan(find("Qwen/Qwen3-0.6B"), None, (), (), own, host=room).memory_ratio is None


def test_a_pod_without_a_gpu_serves_by_its_cpu() -> None:
    found = planned("Qwen/Qwen3-0.6B", ())
    assert (found.gpus, found.context, dict(found.env)) == ((), 16384, {})
    with pytest.raises(BadArgument):
        planned("Qwen/Qwen3-0.6B", (), ServeWish(gpus=1))


def test_parsers_are_the_entrys_or_those_of_the_family() -> None:
    found = planned("zai-org/GLM-4.5-Air", rooms_of("4x H100"))
    assert found.args[:5] == ("--enable-auto-tool-choice", "--tool-call-parser", "glm45", "--reasoning-parser", "glm45")
    fine_tune = plan(find("someone/Qwen3-8B-tuned"), None, (), rooms_of("L4"))
    assert arguments.value_of(fine_tune.args, "tool-call-parser") == "hermes"
    own = planned("zai-org/GLM-4.5-Air", rooms_of("4x H100"), ServeWish(extra=("--tool-call-parser=mine",)))
    assert "glm45" not in own.args[: own.args.index("--reasoning-parser")]


@pytest.mark.parametrize(
    "name, tool, reasoning",
    [
        ("Qwen/Qwen2.5-7B-Instruct", "hermes", None),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder", None),
        ("Qwen/Qwen3-8B", "hermes", "qwen3"),
        ("Qwen/Qwen3.6-27B", "qwen3_coder", "qwen3"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral", None),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json", None),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4_pythonic", None),
        ("internlm/internlm2_5-7b-chat", "internlm", None),
        ("ai21labs/AI21-Jamba-1.5-Mini", "jamba", None),
        ("ibm-granite/granite-20b-functioncalling", "granite-20b-fc", None),
        ("ibm-granite/granite-3.1-8b-instruct", "granite", None),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek_v3", None),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", None, "deepseek_r1"),
        ("Salesforce/Llama-xLAM-2-8b-fc-r", "xlam", None),
        ("microsoft/phi-2", None, None),
        ("nobody/knows-this", "hermes", None),
    ],
)
def test_families_are_told_by_name(name: str, tool: str | None, reasoning: str | None) -> None:
    assert (parsers_of(name).tool, parsers_of(name).reasoning) == (tool, reasoning)


@pytest.mark.parametrize("text, meant", [("2", 2), ("0,3", (0, 3)), ("0,", (0,)), (" 1 , 2 ", (1, 2))])
def test_a_choice_of_gpus(text: str, meant: object) -> None:
    assert parse_gpu_choice(text) == meant


@pytest.mark.parametrize("text", ["", "0", "-1", "a", "1,1", ",", "1;2", "1,,2"])
def test_a_choice_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_gpu_choice(text)
    assert "0,1" in caught.value.hint


# ---------------------------------------------------------------------------------------------------- what always holds

FREE = st.integers(0, 80 * GB)
ROOMS = st.lists(st.tuples(FREE, st.integers(0, 3), st.sampled_from(["NVIDIA A100 80GB PCIe", "NVIDIA L40S"])),
                 min_size=1, max_size=8).map(
    lambda drawn: tuple(
        GpuRoom(index, name, total := 80 * GB if "A100" in name else 48 * GB, min(free, total), endpoints)
        for index, (free, endpoints, name) in enumerate(drawn)
    )
)  # fmt: skip
WORDS = st.lists(
    st.one_of(
        st.sampled_from(["--max-num-seqs", "--hf-overrides", "--a.b", "-x", "--seed=3", "--no-enable-prefix-caching"]),
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12),
        st.dictionaries(st.text(max_size=4), st.integers(), max_size=3).map(json.dumps),
    ),
    max_size=8,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(rooms=ROOMS)
def test_a_busy_gpu_is_never_preferred_to_a_free_one(rooms: tuple[GpuRoom, ...]) -> None:
    """Of one kind and equally pinned, none that is left lying is freer than one that is taken; and what holds an
    endpoint of ours comes after everything that does not."""
    found = choice.candidates((), rooms, None, lambda gpus: (gpus, 1, 1))
    assert [bool(each.shared) for each in found] == sorted(bool(each.shared) for each in found)
    for candidate in found:
        left = [room for room in rooms if room not in candidate.rooms and room.name == candidate.rooms[0].name]
        for taken in candidate.rooms:
            for other in left:
                if bool(other.endpoints) == bool(taken.endpoints):
                    assert other.free_bytes * 32 // other.total_bytes <= taken.free_bytes * 32 // taken.total_bytes


@hypothesis_settings(max_examples=60, deadline=None)
@given(rooms=ROOMS, model=st.sampled_from([SMALL, CODER, "Qwen/Qwen3-32B-FP8", "openai/gpt-oss-120b"]))
def test_a_plan_stays_within_what_is_free_and_is_always_the_same(rooms: tuple[GpuRoom, ...], model: str) -> None:
    try:
        found = planned(model, rooms)
    except EngineUnavailable:
        return
    assert found == planned(model, tuple(reversed(rooms))), "the order in which GPUs are told does not matter"
    assert found.fit is not None and found.fit.fits is True
    assert len(set(found.gpus)) == len(found.gpus) == found.tensor_parallel * found.data_parallel
    chosen = [room for room in rooms if room.index in found.gpus]
    assert len({room.name for room in chosen}) == 1
    assert found.memory_ratio is not None
    for part in found.fit.gpus:
        assert part.weights_bytes + part.activations_bytes + part.overhead_bytes < part.budget_bytes
        assert part.left_bytes >= 0
    assert dict(found.env)["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, found.gpus))


@hypothesis_settings(max_examples=100, deadline=None)
@given(extra=WORDS)
def test_raw_arguments_arrive_byte_for_byte(extra: list[str]) -> None:
    found = planned("openai/gpt-oss-120b", rooms_of("8x H200"), ServeWish(extra=tuple(extra)))
    assert found.args[len(found.args) - len(extra) :] == tuple(extra)


@given(ours=WORDS, theirs=WORDS)
def test_a_replaced_flag_goes_with_its_value(ours: list[str], theirs: list[str]) -> None:
    merged = arguments.merged(ours, theirs)
    kept = merged[: len(merged) - len(theirs)]
    subjects = {each.subject for each in arguments.split(theirs)}
    assert [each for each in arguments.split(ours) if each.subject not in subjects] == list(arguments.split(kept))
    assert merged[len(kept) :] == tuple(theirs)


def test_a_recipe_of_ones_own_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Recipe(SMALL, 1, context=4096, args=("--enforce-eager",))
    entry = find(SMALL)
    found = plan(entry, entry.geometry, (own, *recipes_of(entry)), rooms_of("RTX 4090"))
    assert (found.recipe, found.context) == (own, 4096)
