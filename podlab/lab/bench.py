"""How fast an endpoint answers, measured under one load after another."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podlab import loadtest
from podlab.events import Notice, Stage, Work
from podlab.http import Http
from podlab.lab import endpoints
from podlab.loadtest import Answered, Level, Load, Metric
from podlab.types import Endpoint

if TYPE_CHECKING:
    from podlab.lab.workspace import Reached, Workspace

WARM_UP = Load(requests=1, concurrency=1, output_tokens=8)
LATE_RATIO = 0.1
"""A client that is later than this share of a typical answer measures itself, and that has to be said."""


@dataclass(frozen=True)
class Measured:
    """An endpoint, and what each load gave, in the order they were sent."""

    endpoint: Endpoint
    levels: tuple[Level, ...]


def measure(
    workspace: Workspace, name: str | None, loads: Sequence[Load], limits: Mapping[Metric, float], *,
    on: str | None = None,
) -> Work[Measured]:  # fmt: skip
    """Send each load to an endpoint, one after another, after one request that is not counted.

    An interrupt lets go of the requests under way, which tells the server to stop. Raises BadArgument for a load that
    is none, EngineNotReady, NotFound or Unreachable, and HttpError when the first request is refused.
    """
    for load in loads:
        loadtest.check(load)
    reached = endpoints.reach(workspace, name, on)
    levels = []
    warmed, _ = yield from _sent(reached, WARM_UP, f"Warming up {reached.endpoint.name}")
    if warmed and warmed[0].error:
        yield Notice(f"The first request failed: {warmed[0].error}", "warning")
    for load in loads:
        answered, took_s = yield from _sent(reached, load, f"{reached.endpoint.name}, {_words(load)}")
        level = loadtest.level(load, answered, took_s, limits)
        if level.e2e.p50_s is not None and level.late_s > LATE_RATIO * level.e2e.p50_s:
            late = f"This computer came up to {level.late_s:.2f} s late with its requests: it was a limit of its own."
            yield Notice(late, "warning")
        levels.append(level)
    return Measured(reached.endpoint, tuple(levels))


def _words(load: Load) -> str:
    return f"{load.rate_per_s:g} requests/s" if load.rate_per_s is not None else f"{load.concurrency} at once"


def _sent(reached: Reached, load: Load, text: str) -> Work[tuple[list[Answered], float]]:
    """Send a load from threads of its own, and tell how far it is."""
    http = Http(reached.base_url, key=reached.key, connections=_most_at_once(load))
    counts: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    stop, outcome = threading.Event(), _Outcome()

    def work() -> None:
        try:
            outcome.answered, outcome.took_s = loadtest.drive(http, reached.model, load, told=counts.put, stop=stop)
        except BaseException as error:  # noqa: BLE001  # raised again by whoever waits
            outcome.error = error
        finally:
            counts.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield Stage(text, text, 0, load.requests)
        while (count := counts.get()) is not None:
            yield Stage(text, text, count, load.requests)
    finally:
        stop.set()
        thread.join(1.0)
        http.close()  # cuts what is under way, so that the server stops too
    if outcome.error is not None:
        raise outcome.error
    return outcome.answered, outcome.took_s


def _most_at_once(load: Load) -> int:
    return load.requests if load.rate_per_s is not None else load.concurrency or 1


@dataclasses.dataclass
class _Outcome:
    answered: list[Answered] = dataclasses.field(default_factory=list)
    took_s: float = 0.0
    error: BaseException | None = None
