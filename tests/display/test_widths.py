"""Tables in terminals of some widths: nothing folds in the middle of a name, and nothing is lost."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from podlab.commands.results import BenchReport, EndpointList, ModelList, ModelRow, PodList, SmokeReport
from podlab.display.html import html
from podlab.display.text import renderable
from podlab.loadtest import Level, Spread
from podlab.types import Check, Endpoint, EndpointState, Explanation, Pod, PodState, PodStatus, SshAddress

NOW = time.time()
DETAIL = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 15317.02 MiB on device 0: cudaMalloc failed"
URL = "http://127.0.0.1:40123/v1"
READY = Endpoint("u1", "tiny", "local", "tiny", "llamacpp", EndpointState.READY, url=URL, started_at=NOW - 400)
CRASHED = Endpoint(
    "u2", "qwen-helper", "box", "qwen2.5-0.5b", "llamacpp", EndpointState.CRASHED, "out of memory", DETAIL,
    started_at=NOW - 7200,
)  # fmt: skip
SILENT = PodStatus(
    Pod("box", "p1", "ssh", SshAddress("gpu-17.example.org", "researcher", 2222)),
    PodState.UNREACHABLE,
    NOW - 900,
    DETAIL,
)


def shown(value: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable(value, now=NOW))
    said: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in said.splitlines())
    return said


def flat(said: str) -> str:
    return " ".join(said.split())


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_a_crashed_row(width: int) -> None:
    """Names, states and addresses stay whole, each row on one line; the whole detail is said once it is not in it."""
    said = shown(EndpointList((READY, CRASHED), ()), width)
    (ready,) = (line for line in said.splitlines() if line.startswith("tiny "))
    (crashed,) = (line for line in said.splitlines() if line.startswith("qwen-helper "))
    assert URL in ready
    assert "crashed (out of memory)" in crashed and " box " in f"{crashed} "
    assert f"qwen-helper: {DETAIL}" in flat(said) or DETAIL in crashed


def test_what_is_left_out_is_said() -> None:
    """A narrow terminal goes without the columns that matter least, and names them; a wide one has all."""
    assert "Left out for want of width: model, engine, started." in shown(EndpointList((READY, CRASHED), ()), 80)
    wide = shown(EndpointList((READY, CRASHED), ()), 220)
    assert "Left out" not in wide and "\u2026" not in wide and wide.count(DETAIL) == 1


def test_a_note_is_cut_before_a_column_goes() -> None:
    """At a width between, the detail is cut in its column and stands whole below."""
    said = shown(PodList((SILENT,)), 130)
    assert "\u2026" in said and f"box: {DETAIL}" in flat(said)
    assert "researcher@gpu-17.example.org:2222" in said and "Left out" not in said


def test_a_page_has_notes_below_the_table() -> None:
    """A long detail does not push the address of another row out of view; a table without one is a table alone."""
    page = html(EndpointList((READY, CRASHED), ()), now=NOW)
    table, _, below = page.partition("</table>")
    assert URL in table and DETAIL not in table
    assert f"<b>qwen-helper</b>: {DETAIL}" in below
    assert "<b>" not in html(EndpointList((READY,), ()), now=NOW)


LONG = ModelRow(
    "meta-llama/Llama-4-Scout-17B-16E-Instruct", "sees; 17 of 109 billion weights at work; four 80 GB cards", "vllm",
    "hf:meta-llama/Llama-4-Scout-17B-16E-Instruct", 109 * 10**9, 217 * 10**9, 10 * 2**20, "Llama 4 Community License",
    fits=False, how="Its weights, 202 GiB on each GPU, are more than 92% of GPU 0 (H100), 72.8 GiB.",
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_long_name_folds_and_no_figure_does(width: int) -> None:
    """Nothing is left to go without, and still nothing is cut."""
    said = shown(ModelList((LONG,), "lab"), width)
    first = next(line for line in said.splitlines() if line.startswith("meta-llama/"))
    assert "no" in first.split() and "109 B" in first and "217 GB" in first and "10m" in first
    columns = [line[: first.index("   ")].strip() for line in said.splitlines()]
    assert LONG.id in "".join(columns)


def test_a_page_goes_without_the_same_columns_and_says_so() -> None:
    """A Lab 1200 pixels wide shows the table whole."""
    page = html(ModelList((LONG,), "lab"), now=NOW)
    assert "Left out for want of width: engine, licence, summary." in page
    assert "Left out" not in html(ModelList((ModelRow("a", "b", "vllm", "c"),), "lab"), now=NOW)


def test_latencies_of_a_load_are_short_and_fine() -> None:
    spread = Spread(p50_s=0.0012, p99_s=0.0173)
    level = Level(4, None, 32, 1, 1.0, 31.0, 99.0, 99.0, 9, 9, ttft=spread, tpot=Spread(p50_s=0.9, p99_s=1.2))
    said = shown(BenchReport("tiny", "tiny", "llamacpp", "local", 64, 64, (level,)), 120)
    assert "1.2, 17 ms" in said and "900 ms, 1.2 s" in said and "-, -" in said
    assert "32, 1 failed" in said


def test_a_trial_begins_with_its_verdict() -> None:
    report = SmokeReport(
        "tiny", "tiny", "llamacpp", "local", False, (Check("health", "failed", "/health answers 500"),)
    )
    assert shown(report, 80).startswith("tiny on local (llamacpp) fails\n")


def test_a_log_without_a_known_cause_says_what_to_do() -> None:
    said = shown(Explanation("other", "hello", ("hello",), "", None, False), 80)
    assert "No rule knows this log." in said and "what others report" not in said
