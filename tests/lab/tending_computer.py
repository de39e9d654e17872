"""A computer that tends pods, on a clock of the test's own, and the company in memory where they are rented."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from podlab.errors import ProviderUnavailable
from podlab.lab.launches import Launch, all_launches
from podlab.lab.money import Caps
from podlab.lab.tending import Tended, World, tend
from podlab.lab.tending_file import Owner, TendingFile
from podlab.ledger import Ledger
from tests.lab.company import Clock, Company, market_of

HOUR_S = 3600.0
LEASE_S = 600.0
TOKENS = itertools.count(1)


class Computer:
    """One process that tends, on a computer with a clock."""

    def __init__(self, home: Path, clock: Clock, company: Company, *, caps: Caps | None = None) -> None:
        self.clock, self.company = clock, company
        self.caps = caps or Caps()
        self.ledger = Ledger(home / "ledger.jsonl", now=clock.now)
        self.market = market_of(company, clock, self.ledger)
        self.file = TendingFile(home / "tending.json", clock.now, clock.steady, "boot-0")
        self.begin("keeper")

    def begin(self, who: str) -> None:
        """Another process, which remembers nothing."""
        owner = Owner(who, f"{who}-{next(TOKENS)}")  # type: ignore[arg-type]
        self.world = World(self.file, owner, self.company.beat, lambda: self.caps, beat_deadline_s=None)

    def tend(self) -> Tended:
        return tend(self.market, self.world)

    def run(self, seconds: float) -> Tended:
        """Rounds for so long, each when it is due."""
        until = self.clock.true + seconds
        while True:
            tended = self.tend()
            if self.clock.true + tended.again_s > until:
                self.clock.true = until
                return tended
            self.clock.true += tended.again_s

    def launch(self, id: str) -> Launch:
        return next(launch for launch in all_launches(self.ledger) if launch.id == id)


def failing(error: Exception, *calls: str) -> Callable[[str], None]:
    def fault(call: str) -> None:
        if call in calls or not calls:
            raise error

    return fault


UNAVAILABLE = ProviderUnavailable("no answer")
