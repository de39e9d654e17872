"""An endpoint measured and tried out: the real tiny model, and servers that do less than they should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.commands.parsing import parse
from podlab.commands.results import BenchReport, MetricsReport, Outcome, SmokeReport, document
from podlab.commands.table import find
from podlab.display.plots import figure
from podlab.display.text import text
from podlab.engines.metrics import rate_per_s
from podlab.errors import BadArgument, NotFound
from podlab.http import Http
from podlab.lab import endpoints, matrix, pods
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from tests.audiences import Silent


def carry_out(workspace: Workspace, *words: str) -> tuple[Outcome, Silent]:
    verb, rest = find(list(words))
    audience = Silent(answer=True)
    return drive(verb.handler(workspace, parse(verb, rest, magic=False).args), audience), audience


@pytest.fixture
def tiny(workspace: Workspace) -> Iterator[Workspace]:
    pytest.importorskip("xllamacpp")
    carry_out(workspace, "model", "start", "tiny")
    yield workspace
    carry_out(workspace, "model", "stop", "tiny")


def test_tokens_a_second_are_what_was_added_between_two_readings(tiny: Workspace) -> None:
    """Eleven tokens in what the clock says were two seconds."""
    reached = endpoints.reach(tiny, "tiny")
    ticks = iter((100.0, 102.0))

    def answer(_: float) -> None:
        http = Http(reached.base_url, key=reached.key)
        body = {"model": reached.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 11,
                "ignore_eos": True}  # fmt: skip
        http.post_json("/chat/completions", body)
        http.close()

    before, after, took_s = endpoints.metrics_over(reached, 2.0, sleep=answer, clock=lambda: next(ticks))
    assert before.generation_tokens is not None and after.generation_tokens is not None
    assert after.generation_tokens - before.generation_tokens == 11
    assert rate_per_s(before.generation_tokens, after.generation_tokens, took_s) == 5.5


def test_tiny_does_what_a_server_should_and_its_speed_is_told(tiny: Workspace) -> None:
    outcome, _ = carry_out(tiny, "model", "smoke")
    report = outcome.value
    assert isinstance(report, SmokeReport)
    states = {check.name: check.state for check in report.checks}
    assert outcome.exit_code == 0, report.checks
    wanted = ("health", "models", "answer", "streaming", "stop string", "seed", "cancel", "metrics")
    assert {name: states[name] for name in wanted} == dict.fromkeys(wanted, "ok")

    outcome, _ = carry_out(tiny, "model", "metrics", "--over", "10ms")
    counted = outcome.value
    assert isinstance(counted, MetricsReport)
    assert (counted.endpoint, counted.running, counted.waiting) == ("tiny", 0, 0)
    (said,) = [check.detail for check in report.checks if check.name == "metrics"]
    assert said.startswith(f"{counted.generation_tokens} tokens written, "), "it is held by what `model metrics` shows"
    assert counted.generation_tokens_per_s == 0.0
    assert "0.0 tokens/s" in text(counted)
    with pytest.raises(BadArgument, match="--over"):
        carry_out(tiny, "model", "metrics", "--over", "0s")

    outcome, audience = carry_out(
        tiny, "model", "bench", "tiny", "--concurrency", "1,3", "--requests", "6", "--output", "8",
        "--goodput", "ttft:10m",
    )  # fmt: skip
    report = outcome.value
    assert isinstance(report, BenchReport)
    assert [(level.concurrency, level.requests, level.failed) for level in report.levels] == [(1, 6, 0), (3, 6, 0)]
    assert all(level.output_tokens == 48 for level in report.levels), "answers have the length that was asked for"
    assert all(level.goodput_per_s == pytest.approx(level.requests_per_s) for level in report.levels)
    assert audience.stages[-1].done == 6
    drawn = figure(report)
    assert drawn is not None
    assert drawn["data"][0]["x"] == ["1 at once", "3 at once"]
    assert "1 at once" in text(report)
    assert document(report)["levels"][0]["ttft"]["p50_s"] > 0


@pytest.mark.parametrize(
    "words", [["--concurrency", "x"], ["--concurrency", "1.5"], ["--rate", "1", "--concurrency", "2"],
              ["--requests", "0"], ["--goodput", "ttft"]],
)  # fmt: skip
def test_a_load_that_is_none_is_refused_before_anything_is_asked(workspace: Workspace, words: list[str]) -> None:
    with pytest.raises(BadArgument):
        carry_out(workspace, "model", "bench", "nobody", *words)


def test_an_endpoint_that_is_not_there_is_said(workspace: Workspace) -> None:
    with pytest.raises(NotFound):
        carry_out(workspace, "model", "bench", "nobody")


def test_the_matrix_holds_what_was_run_and_leaves_nothing_running(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    page = tmp_path / "support.md"
    outcome, _ = carry_out(workspace, "model", "matrix", "tiny", "--backends", "cpu,cuda", "--save", str(page))
    report = outcome.value
    assert [(row.backend, row.state, row.cause) for row in report.rows] == [
        ("cpu", "works", None), ("cuda", "fails", "driver_or_device"),
    ]  # fmt: skip
    assert outcome.exit_code == 1, "a combination that fails is no success"
    works, fails = page.read_text().splitlines()[-2:]
    assert "| tiny | llamacpp | cpu | works |" in works
    assert "| tiny | llamacpp | cuda | fails | - |" in fails
    listed, _ = carry_out(workspace, "model", "list")
    assert [endpoint.state for endpoint in listed.value.endpoints if endpoint.pid] == []


def test_what_no_engine_could_serve_is_not_tried(workspace: Workspace) -> None:
    with pytest.raises(BadArgument, match="No engine among these"):
        carry_out(workspace, "model", "matrix", "tiny", "--engines", "vllm")
    plan, _ = carry_out(workspace, "model", "matrix", "tiny", "--engines", "llamacpp,vllm", "--dry-run")
    assert [line.split(" on ")[0] for line in plan.value.would] == ["start tiny with llamacpp"]


def test_a_matrix_that_is_interrupted_or_times_out_leaves_nothing_running(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    carry_out(workspace, "model", "start", "tiny", "--name", "matrix-1")
    work = matrix.run(workspace, pods.find("local"), [Wish("tiny", engine="llamacpp")])
    while getattr(next(work), "key", "") != "start":
        pass
    next(work)  # it runs by now, however far it has come
    with pytest.raises(KeyboardInterrupt):
        work.throw(KeyboardInterrupt)
        while True:
            next(work)
    monkeypatch.setenv("PODLAB_START_DEADLINE_S", "0.001")
    outcome, _ = carry_out(workspace, "model", "matrix", "tiny")
    assert [row.state for row in outcome.value.rows] in (["fails"], ["works"])
    listed, _ = carry_out(workspace, "model", "list")
    assert [each.name for each in listed.value.endpoints if each.pid] == ["matrix-1"], "what was there stays as it was"
    carry_out(workspace, "model", "stop", "matrix-1")
