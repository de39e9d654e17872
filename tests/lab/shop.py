"""A sandbox on a socket with podlab's own provider as its client, on a clock that runs faster than ours."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podlab import settings
from podlab.commands.drive import drive
from podlab.lab import attempts, renting
from podlab.lab.crew import Here
from podlab.lab.launches import Launch, all_launches
from podlab.lab.market import Market
from podlab.lab.readiness import Patience
from podlab.lab.rent_wish import RentWish
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.sandbox.fault_names import Ask, set_fault
from podlab.sandbox.records import Pace, PodRecord, Status
from podlab.sandbox.serve import Running, start
from tests.audiences import Silent

WISH = RentWish(provider="sandbox", gpus=("A40", "RTX A6000"), ttl_s=4 * 3600.0, idle_s=None)


class Alone(Here):
    """A computer on which nobody tends what is rented: brakes run on our time, not on the shop's."""

    def watched(self) -> str:
        return "nobody does"


@dataclass
class Shop:
    """The company that is open, and this computer before it. Seconds pass `speed` times as fast as ours."""

    running: Running
    workspace: Workspace
    market: Market
    crew: Alone

    def fault(self, name: str, **ask: object) -> None:
        """Have something go wrong from now on."""
        fault = set_fault(self.running.company, name, Ask(**ask))  # type: ignore[arg-type]
        if fault is not None:
            self.running.rest.faults.add(fault)

    def create(self, wish: RentWish = WISH, audience: Silent | None = None) -> Launch:
        return drive(renting.create(self.market, wish, self.crew), audience or Silent(True))

    def launches(self) -> tuple[Launch, ...]:
        return all_launches(self.market.ledger)

    def living(self) -> list[PodRecord]:
        """The pods that cost money, whoever made them."""
        return [pod for pod in self.running.company.pods.values() if pod.status is not Status.TERMINATED]


@contextlib.contextmanager
def shop(
    tmp_path: Path, *, speed: float = 1.0, machines: bool = True, pace: Pace | None = None, lag_s: float | None = None
) -> Iterator[Shop]:
    """A sandbox that is open as long as the block lasts, in this PODLAB_HOME."""
    begun, at = time.monotonic(), time.time()

    def now() -> float:
        return at + (time.monotonic() - begun) * speed

    running = start(tmp_path / "sandbox", seed=7, now=now, machines=machines, pace=pace or Pace())
    path = settings.home() / "sandbox.json"
    said = {"url": running.url, "key": running.key, "pid": os.getpid()}
    path.write_text(json.dumps(said if lag_s is None else said | {"lag_s": lag_s}))
    path.chmod(0o600)
    workspace = Workspace.open()
    market = Market(Ledger(now=now), company, now, lambda seconds: time.sleep(seconds / speed))
    patch = pytest.MonkeyPatch()
    # A computer that is busy for a moment has not slept, however fast time passes here.
    patch.setattr(attempts, "LATE_S", attempts.LATE_S * speed)
    try:
        yield Shop(running, workspace, market, Alone(workspace, market, patience=Patience(poll_s=0.2 * speed)))
    finally:
        patch.undo()
        workspace.close()
        running.stop()
