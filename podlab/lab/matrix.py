"""Which models run on which engines and backends of a pod: found out by starting each, trying it and stopping it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.errors import EngineCrashed, NotFound, PodlabError
from podlab.events import Notice, Stage, Work
from podlab.lab import bench, endpoints, launch, smoke
from podlab.lab.wish import Wish
from podlab.loadtest import Load
from podlab.types import Tried
from podlab.units import duration_text, rate_text

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod

LOAD = Load(requests=4, concurrency=1, input_words=32, output_tokens=32)


def run(workspace: Workspace, pod: Pod, wishes: Sequence[Wish]) -> Work[tuple[Tried, ...]]:
    """Start, try and stop each in turn; one that fails is a row of its own, and the next is tried.

    An interrupt stops what was started last and ends the whole.
    """
    found = []
    name = f"matrix-{uuid.uuid4().hex[:6]}"  # of this run alone: what somebody else runs is neither tried nor stopped
    for number, wish in enumerate(wishes, 1):
        yield Stage("matrix", f"{wish.model} with {wish.engine}", number - 1, len(wishes))
        found.append((yield from _tried(workspace, pod, replace(wish, name=f"{name}-{number}"))))
    return tuple(found)


def _tried(workspace: Workspace, pod: Pod, wish: Wish) -> Work[Tried]:
    """Start, try and measure one; whatever comes of it, it is stopped."""
    row = Tried(wish.model, wish.engine or "", wish.backend, "fails", pod.name)
    began = time.monotonic()
    try:
        endpoint = yield from launch.start(workspace, pod, wish)
        row = replace(row, engine=endpoint.engine, state="partly", ready_s=time.monotonic() - began)
        _, checks = yield from smoke.smoke(workspace, wish.name, on=pod.name)
        failed = [check.name for check in checks if check.state == "failed"]
        row = replace(row, checks=checks, detail=f"fails: {', '.join(failed)}" if failed else "")
        (level,) = (yield from bench.measure(workspace, wish.name, [LOAD], {}, on=pod.name)).levels
        return replace(
            row, state="partly" if failed else "works", tokens_per_s=level.output_tokens_per_s,
            first_token_s=level.ttft.p50_s,
        )  # fmt: skip
    except EngineCrashed as error:
        return replace(row, cause=error.cause, detail=error.message)
    except PodlabError as error:
        return replace(row, detail=error.message)
    finally:
        yield from _stopped(workspace, wish.name or "", pod)


def _stopped(workspace: Workspace, name: str, pod: Pod) -> Work[None]:
    try:
        yield from endpoints.stop(workspace, name, pod.name)
    except NotFound:  # it was refused before anything was started
        pass
    except PodlabError as error:
        yield Notice(f"{name} on {pod.name} may still run: {error.message}", "warning")


def page(rows: Sequence[Tried], machine: str, version: str) -> str:
    """The support table as Markdown: a row for each combination that was tried, and nothing else."""
    heads = ("model", "engine", "backend", "result", "ready after", "tokens/s", "first token", "checks", "detail")
    lines = [
        "# What was seen to work",
        "",
        f"Written by `podlab model matrix` {version} on {machine}.",
        "Each row is a run; what was not run is not here.",
        "",
        _row(heads),
        _row(["---"] * len(heads)),
        *(_row(_cells(tried)) for tried in rows),
    ]
    return "\n".join(lines) + "\n"


def _cells(tried: Tried) -> tuple[str, ...]:
    ok = [check for check in tried.checks if check.state == "ok"]
    left = [f"{check.name} {check.state}" for check in tried.checks if check.state != "ok"]
    checks = ", ".join([f"{len(ok)} of {len(tried.checks)} ok", *left]) if tried.checks else ""
    return (
        tried.model, tried.engine, tried.backend or "", tried.state,
        "" if tried.ready_s is None else duration_text(tried.ready_s),
        "" if tried.tokens_per_s is None else rate_text(tried.tokens_per_s),
        "" if tried.first_token_s is None else duration_text(tried.first_token_s),
        checks, f"{tried.cause}: {tried.detail}" if tried.cause else tried.detail,
    )  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    plain = (" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") or "-" for cell in cells)
    return f"| {' | '.join(plain)} |"
