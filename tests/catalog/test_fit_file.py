"""GGUF models under llama.cpp: on GPUs, and in a computer's memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.catalog.fit import Wish
from podlab.catalog.fit_file import HostRoom, fit_file
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.reading import geometry_of_file
from tests.catalog.test_headers import GGUF

GIB = 2**30
# Qwen3-8B in q4_k_m.
EIGHT = Geometry(
    weight_bytes=5_027_783_872, quantization="gguf", layers=36, hidden_size=4096, vocab_size=151936,
    attention_heads=32, kv_heads=8, head_dim=128, intermediate_size=12288, max_context=40960,
)  # fmt: skip


def rooms(*free_gib: float) -> list[GpuRoom]:
    return [GpuRoom(index, "RTX 4090", 24 * GIB, round(free * GIB)) for index, free in enumerate(free_gib)]


def test_it_takes_its_file_its_context_and_a_buffer() -> None:
    result = fit_file(EIGHT, rooms(24), Wish(context=8192))
    (part,) = result.gpus

    assert result.fits
    assert part.weights_bytes == EIGHT.weight_bytes
    assert part.cache_bytes == 36 * 2 * 8 * 128 * 2 * 8192
    assert part.activations_bytes / 2**20 == pytest.approx(300.75, rel=0.05)  # llama.cpp's "compute buffer size"
    assert result.largest_context == 40960


def test_gpus_share_it_by_what_is_free_on_each() -> None:
    first, second = fit_file(EIGHT, rooms(24, 12), Wish(context=8192)).gpus

    assert first.weights_bytes == pytest.approx(2 * second.weights_bytes, rel=0.01)
    assert first.left_bytes > 0 and second.left_bytes > 0


def test_too_long_a_context_names_the_longest() -> None:
    result = fit_file(EIGHT, rooms(8), Wish(context=32768))

    assert result.fits is False
    (first, *_) = result.nearest
    assert first.text == f"--context {(result.largest_context or 0) // 256 * 256}"
    assert fit_file(EIGHT, rooms(8), first.wish).fits


def test_too_many_conversations() -> None:
    result = fit_file(EIGHT, rooms(12), Wish(context=8192, concurrency=9))

    assert f"--concurrency {result.largest_concurrency}" in [each.text for each in result.nearest]


def test_weights_that_are_too_large() -> None:
    result = fit_file(EIGHT, rooms(4), Wish(context=4096))

    assert result.reason == "Its weights, 4.7 GiB, are more than the 4.0 GiB that are free on 1 GPU."
    assert [each.text for each in result.nearest] == ['--gpus "2xRTX 4090"']


def test_on_a_cpu_the_memory_counts() -> None:
    fits, not_ = (fit_file(EIGHT, HostRoom(32 * GIB, free * GIB), Wish(context=8192)) for free in (16, 5))

    assert fits.fits
    assert fits.gpus[0].name == "memory"
    assert not_.fits is False
    assert "are free in memory" in not_.reason


def test_more_context_than_it_was_made_for() -> None:
    """A larger machine would not help: a shorter context does."""
    found = fit_file(EIGHT, rooms(24), Wish(context=50_000))
    assert found.reason == "The model was made for 40k tokens, not for 50000."
    assert [change.text for change in found.nearest][:1] == ["--context 40960"]


def test_what_is_not_known_is_said() -> None:
    assert fit_file(replace(EIGHT, layers=None), rooms(24), Wish()).missing == ("layers",)


def test_the_model_that_ships_fits_anywhere() -> None:
    assert fit_file(geometry_of_file(GGUF), HostRoom(GIB, GIB // 8), Wish()).fits
