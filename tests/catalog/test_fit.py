"""The arithmetic: what it says of real runs, and how it behaves."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from podlab.catalog.cache import Request, layout_of
from podlab.catalog.config_reader import geometry_of_config
from podlab.catalog.fit import Wish, default_wish, fit
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.memory import default_batch, weights_bytes
from podlab.errors import BadArgument
from tests.catalog.fit_runs import Run, config, judged, runs

GIB = 2**30
MIB = 2**20
# The largest error each may have, in percent; benchmarks/fit.py shows what it is.
WEIGHTS, LAYOUT, CACHE_OF_GPU = 5.0, 2.0, 10.0


def gpu(name: str = "RTX 4090", mib: int = 24564, *, index: int = 0, free_mib: int | None = None) -> GpuRoom:
    return GpuRoom(index, name, mib * MIB, (mib if free_mib is None else free_mib) * MIB)


def gpus(count: int, name: str = "RTX 4090", mib: int = 24564) -> list[GpuRoom]:
    return [gpu(name, mib, index=index) for index in range(count)]


def model(name: str, weight_bytes: int | None = None) -> Geometry:
    bare = geometry_of_config(config(name))
    own = weight_bytes or round((bare.parameters or 0) * bare.dtype_bytes)
    return geometry_of_config(config(name), weight_bytes=own)


LLAMA = model("meta-llama--Meta-Llama-3.1-8B", 16_060_522_496)


@pytest.mark.parametrize("run", runs(), ids=lambda run: run.name)
def test_a_public_run_is_met(run: Run) -> None:
    found = judged(run)
    errors = (found.weights_percent, found.layout_percent, found.cache_of_gpu_percent)

    assert any(error is not None for error in errors)
    assert run.url.startswith("https://")
    for error, limit in zip(errors, (WEIGHTS, LAYOUT, CACHE_OF_GPU), strict=True):
        assert error is None or abs(error) <= limit


def test_half_of_the_public_runs_are_met_closely() -> None:
    found = [judged(run) for run in runs()]

    assert len(found) >= 15
    assert statistics.median(abs(each.weights_percent) for each in found if each.weights_percent is not None) < 1
    assert statistics.median(abs(each.layout_percent) for each in found if each.layout_percent is not None) < 0.5
    cache = [abs(each.cache_of_gpu_percent) for each in found if each.cache_of_gpu_percent is not None]
    assert statistics.median(cache) < 2


def test_the_parts_of_a_gpu_are_all_of_the_budget() -> None:
    result = fit(LLAMA, gpus(1), Wish(context=8192))
    (part,) = result.gpus

    taken = part.weights_bytes + part.activations_bytes + part.overhead_bytes + part.cache_bytes
    assert taken == part.budget_bytes
    assert result.fits
    assert result.cache_bytes_per_token == 2 * 32 * 8 * 128 * 2


def test_largest_context_and_concurrency_are_where_it_stops_fitting() -> None:
    result = fit(LLAMA, gpus(1), Wish(context=4096, concurrency=3))
    longest, most = result.largest_context, result.largest_concurrency

    assert longest and most
    assert fit(LLAMA, gpus(1), Wish(context=longest, concurrency=3)).fits
    assert not fit(LLAMA, gpus(1), Wish(context=longest + 16, concurrency=3)).fits
    assert fit(LLAMA, gpus(1), Wish(context=4096, concurrency=most)).fits
    assert not fit(LLAMA, gpus(1), Wish(context=4096, concurrency=most + 1)).fits


def test_what_does_not_fit_is_said_with_what_would() -> None:
    result = fit(LLAMA, gpus(1), Wish())

    assert result.fits is False
    assert "128k tokens" in result.reason
    texts = [each.text for each in result.nearest]
    assert any(text.startswith("--context ") for text in texts)
    assert '--gpus "2xRTX 4090"' in texts
    for each in result.nearest:
        assert fit(LLAMA, gpus(each.gpus), each.wish).fits


def test_weights_that_are_too_large_ask_for_more_gpus() -> None:
    result = fit(model("Qwen--Qwen3-32B"), gpus(1), Wish(context=4096))

    assert result.fits is False
    assert result.reason.startswith("Its weights, 61.0 GiB on each GPU, are more than")
    assert [each.text for each in result.nearest] == ['--gpus "4xRTX 4090"']


def test_more_requests_than_fit() -> None:
    result = fit(LLAMA, gpus(1), Wish(context=8192, concurrency=50))

    assert result.reason == f"Only {result.largest_concurrency} requests of 8k tokens fit at the same time, not 50."
    assert f"--concurrency {result.largest_concurrency}" in [each.text for each in result.nearest]


def test_others_on_the_gpu_keep_vllm_from_starting() -> None:
    busy = [gpu(free_mib=20000)]
    result = fit(LLAMA, busy, Wish(context=4096))

    assert result.fits is False
    assert "has only 19.5 GiB free, and vLLM does not start" in result.reason
    assert result.gpus[0].left_bytes < 0
    less = next(each for each in result.nearest if each.text.startswith("--memory"))
    assert fit(LLAMA, busy, less.wish).fits


def test_a_context_beyond_what_the_model_was_made_for() -> None:
    result = fit(LLAMA, gpus(1, "H100", 81559), Wish(context=200_000))

    assert result.reason == "The model was made for 128k tokens, not for 200000."


def test_what_is_not_known_is_said() -> None:
    result = fit(replace(LLAMA, kv_heads=None, weight_bytes=None), gpus(1), Wish())

    assert result.fits is None
    assert result.missing == ("weight_bytes", "kv_heads")
    assert result.reason == "Not known of the model: weight_bytes, kv_heads."


@pytest.mark.parametrize(
    "count, wish, word",
    [
        (2, Wish(), "1 x 1 GPUs are meant and 2 given"),
        (1, Wish(memory_ratio=1.5), "A share of 1.5"),
        (1, Wish(concurrency=0), "Less than one request"),
    ],
)
def test_a_wish_that_makes_no_sense(count: int, wish: Wish, word: str) -> None:
    with pytest.raises(BadArgument, match=word):
        fit(LLAMA, gpus(count), wish)


def test_heads_that_do_not_divide() -> None:
    result = fit(LLAMA, gpus(3), Wish(context=4096, tensor_parallel=3))

    assert result.reason == "3 GPUs cannot share its 32 attention heads equally."
    assert default_wish(LLAMA, gpus(3), Wish()).tensor_parallel == 1
    assert default_wish(LLAMA, gpus(6), Wish()) == Wish(tensor_parallel=2, data_parallel=3)


def test_fp8_blocks_that_a_cut_would_halve_need_expert_parallelism() -> None:
    shape = replace(model("Qwen--Qwen3-Coder-480B-A35B-Instruct", 482_000_000_000), quantization_block=128)
    eight = gpus(8, "H200", 143771)
    cut = fit(shape, eight, Wish(context=32768, tensor_parallel=8))

    assert cut.fits is False
    assert "with expert parallelism they hold whole experts" in cut.reason
    assert fit(shape, eight, Wish(context=32768, tensor_parallel=8, expert_parallel=True)).fits
    assert "--expert-parallel" in [each.text for each in cut.nearest]


def test_kv_heads_fewer_than_the_gpus_are_repeated() -> None:
    four = model("Qwen--Qwen3-30B-A3B")

    at_4, at_8 = (layout_of(four, width) for width in (4, 8))
    assert at_4 and at_8
    assert at_4.page_bytes == at_8.page_bytes
    assert weights_bytes(four, gpu(), 8, 1) > weights_bytes(four, gpu(), 4, 1) / 2


def test_latent_attention_is_not_divided() -> None:
    shape = model("deepseek-ai--DeepSeek-V3", 688_000_000_000)
    one, eight = (layout_of(shape, width) for width in (1, 8))

    assert one and eight
    assert one.bytes_per_token() == eight.bytes_per_token() == 61 * 576 * 2


def test_fp8_halves_the_cache() -> None:
    plain, eighth = layout_of(LLAMA, 1), layout_of(LLAMA, 1, "fp8")

    assert plain and eighth
    assert plain.page_bytes == 2 * eighth.page_bytes


def test_windows_stop_growing() -> None:
    layout = layout_of(model("openai--gpt-oss-20b", 13_761_264_768), 1)
    assert layout

    short, long = (layout.pages(Request(context, 2048, 1)) for context in (65536, 131072))
    # Of the two groups of twelve layers, one grows with the context.
    assert long - short == 65536 // 16
    assert layout.page_bytes == 12 * 16 * 2 * 8 * 64 * 2


def test_states_take_pages_whatever_the_context() -> None:
    layout = layout_of(model("Qwen--Qwen3.5-27B"), 1)
    assert layout

    whole = next(kind for kind in layout.kinds if kind.tokens_a_page)
    assert whole.tokens_a_page == 784  # as vLLM says: "Setting attention block size to 784 tokens"
    assert layout.pages(Request(784, 0, 2)) - layout.pages(Request(784, 0, 1)) == 3


def test_experts_are_divided_over_all_gpus_and_the_rest_is_not() -> None:
    shape = model("Qwen--Qwen3-30B-A3B")
    together, replicas = weights_bytes(shape, gpu(), 4, 1), weights_bytes(shape, gpu(), 1, 4)

    rest = (shape.weight_bytes or 0) - shape.expert_bytes
    assert replicas == pytest.approx(shape.expert_bytes / 4 + rest, rel=0.01)
    assert together < replicas


def test_replicas_hold_as_many_requests_each() -> None:
    one = fit(LLAMA, gpus(1), Wish(context=8192))
    two = fit(LLAMA, gpus(2), Wish(context=8192, data_parallel=2))

    assert two.largest_concurrency == 2 * (one.largest_concurrency or 0)


def test_graphs_cost_what_eager_saves() -> None:
    with_graphs, without = (fit(LLAMA, gpus(1), Wish(context=4096, eager=eager)) for eager in (False, True))

    assert without.gpus[0].overhead_bytes < with_graphs.gpus[0].overhead_bytes
    assert (without.cache_tokens or 0) > (with_graphs.cache_tokens or 0)


@pytest.mark.parametrize(
    "name, mib, tokens, sequences",
    [("RTX 4090", 24564, 2048, 256), ("A100 80GB", 81920, 2048, 256), ("H100", 81559, 8192, 1024),
     ("B200", 183359, 16384, 1024)],
)  # fmt: skip
def test_vllms_own_defaults_by_gpu(name: str, mib: int, tokens: int, sequences: int) -> None:
    batch = default_batch(gpu(name, mib))

    assert (batch.tokens, batch.sequences) == (tokens, sequences)
