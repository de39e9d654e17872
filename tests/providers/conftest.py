"""Each provider as its callers get it; those that rent stand before a simulated company on a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podlab.providers.base import Provider
from podlab.providers.companies import company
from podlab.sandbox.records import Pace
from podlab.sandbox.serve import Running, start
from podlab.settings import home
from tests.clock import Clock

PACE = Pace(provision_s=20, start_s=40, runtime_s=10)


@dataclass(frozen=True)
class Desk:
    """A provider, and for one that rents the company behind it with its clock."""

    provider: Provider
    behind: Running | None = None
    clock: Clock | None = None

    def pass_s(self, seconds: float) -> None:
        """Let time pass at the company."""
        assert self.clock is not None and self.behind is not None
        self.clock.turn(seconds)
        self.behind.company.advance()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def running(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    opened = start(tmp_path / "sandbox", seed=7, now=clock, pace=PACE, machines=False)
    yield opened
    opened.stop()


@pytest.fixture
def open_desk(running: Running, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Desk]:
    """A desk of a provider by its name: `runpod` by a key and a base URL, `sandbox` by its file."""

    def opened(name: str) -> Desk:
        if name in ("local", "ssh"):
            return Desk(company(name))
        if name == "runpod":
            monkeypatch.setenv("RUNPOD_API_KEY", running.key)
            monkeypatch.setenv("RUNPOD_API_BASE_URL", running.url + "/")
        else:
            said = {"url": running.url, "key": running.key, "pid": 1}
            (home() / "sandbox.json").write_text(json.dumps(said))
        return Desk(company(name), running, clock)

    return opened
