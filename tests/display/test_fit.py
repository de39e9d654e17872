"""How a verdict looks."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console

from podlab.catalog.config_reader import geometry_of_config
from podlab.catalog.fit import Wish, fit
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.commands.results import FitReport, document
from podlab.display.html import html
from podlab.display.text import renderable, text
from tests.catalog.fit_runs import config

GIB = 2**30


def report(context: int, geometry: Geometry | None = None) -> FitReport:
    shape = geometry or geometry_of_config(config("meta-llama--Meta-Llama-3.1-8B"), weight_bytes=16_060_522_496)
    result = fit(shape, [GpuRoom(0, "RTX 4090", 24 * GIB, 24 * GIB)], Wish(context=context))
    return FitReport(
        "llama", "vllm", "", result.fits, result.reason, result.context, 1, 1, 1, 0.92, "auto", result.gpus,
        result.cache_bytes_per_token, result.cache_tokens, result.largest_context, result.largest_concurrency,
        tuple(each.text for each in result.nearest), result.missing, "there",
    )  # fmt: skip


def test_a_verdict_as_text() -> None:
    said = text(report(8192)).splitlines()

    assert said[0] == "llama: fits on 1x RTX 4090"
    assert re.fullmatch(r"0: RTX 4090  \[█+▓+▒*░*·+\]", next(line for line in said if "[" in line))
    assert "█ weights  ▓ KV cache  ▒ activations  ░ overhead  · rest" in said


def test_a_refusal_names_the_ways_out() -> None:
    said = text(report(131072))

    assert said.startswith("llama: does not fit")
    assert "It would fit with one of:" in said
    assert "1. --context " in said


def test_a_bar_in_a_page_names_its_pieces_and_takes_the_themes_colours() -> None:
    page = html(report(8192), now=0)

    assert 'title="weights 15.0 GiB"' in page
    assert set(re.findall(r"background:([^;\"]+)", page)) <= set(
        re.findall(r"var\(--jp-[a-z0-9-]+,#[0-9a-f]{6}\)", page)
    )
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", page)]
    assert 99 < sum(widths) < 101


def test_what_is_not_known_is_neither_good_nor_bad() -> None:
    said = text(report(8192, Geometry()))

    assert said.startswith("llama: not known")
    assert "Not known of the model: weight_bytes, layers, hidden_size, kv_heads, head_dim." in said


def test_the_document_holds_every_part() -> None:
    found = document(report(8192))

    assert found["fits"] is True
    assert set(found["gpus"][0]) >= {
        "weights_bytes",
        "cache_bytes",
        "activations_bytes",
        "overhead_bytes",
        "left_bytes",
    }


def many(free_gib: tuple[float, ...], pod: str = "") -> str:
    shape = geometry_of_config(config("meta-llama--Meta-Llama-3.1-8B"), weight_bytes=16_060_522_496)
    rooms = [
        GpuRoom(index, "NVIDIA GeForce RTX 4090", 24 * GIB, round(free * GIB)) for index, free in enumerate(free_gib)
    ]
    result = fit(shape, rooms, Wish(context=8192, tensor_parallel=len(rooms)))
    return text(replace(report(8192), pod=pod, gpus=result.gpus, tensor_parallel=len(rooms)))


def test_gpus_of_which_the_same_is_said_share_a_row() -> None:
    """And what nobody uses has no column of its own for being free."""
    named, there = many((24, 24)), many((24, 20), "lab")

    assert named.startswith("llama: fits on 2x NVIDIA GeForce RTX 4090\n")
    assert [line.split("  ")[0] for line in named.splitlines() if "RTX" in line][1:] == ["0-1: GeForce RTX 4090"] * 2
    assert "free now" not in named and "24.0 GiB" in named
    assert there.startswith("llama: fits on 2x NVIDIA GeForce RTX 4090 of lab\n")
    assert "free now" in there and "1: GeForce RTX 4090" in there


def test_gpus_that_are_not_next_to_each_other_are_named_apart() -> None:
    shape = geometry_of_config(config("meta-llama--Meta-Llama-3.1-8B"), weight_bytes=16_060_522_496)
    rooms = [GpuRoom(index, "NVIDIA L4", 24 * GIB, 24 * GIB) for index in (0, 2, 3, 4)]
    result = fit(shape, rooms, Wish(context=8192, tensor_parallel=4))
    said = text(replace(report(8192), gpus=result.gpus, tensor_parallel=4)).splitlines()

    assert [line.split("  ")[0] for line in said if "L4" in line][1:3] == ["0: L4", "2-4: L4"]


def test_in_a_narrow_terminal_no_figure_is_cut() -> None:
    console = Console(file=io.StringIO(), width=80)
    console.print(renderable(report(131072)))
    said: str = console.file.getvalue()  # type: ignore[attr-defined]

    assert "each GPU" not in said  # it is one
    row = next(line for line in said.splitlines() if line.startswith("0: RTX 4090  ") and "[" not in line)
    assert re.findall(r"[\d.]+ [KMG]iB", row) == re.findall(r"[\d.]+ \S+", row.removeprefix("0: RTX 4090"))
