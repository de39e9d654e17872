"""What renting stands on: the ledger, the providers, a clock and a way to wait. Passed in, so that a campaign can run
years of it in minutes on a clock of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podlab.lab.asking import Asking, LockedAsking
from podlab.lab.launches import Moment
from podlab.lab.steady import boot_id, steady_now
from podlab.ledger import Ledger
from podlab.providers.base import Provider
from podlab.providers.companies import company

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def steady_stamp() -> dict[str, str]:
    """A reading of the clock that nobody can set, and of which boot it is: details of a line of the ledger."""
    return {"steady": f"{steady_now():.3f}", "boot": boot_id()}


@dataclass(frozen=True)
class Market:
    """`provider` gives the one of a name, made at its first use; `now` is seconds since the epoch; `pause` waits.

    `stamp` goes into lines whose distance counts: between two of one boot no clock that is set makes it another one.
    `asking` knows which orders may still be on their way.
    """

    ledger: Ledger
    provider: Callable[[str], Provider]
    now: Callable[[], float]
    pause: Callable[[float], None]
    stamp: Callable[[], Mapping[str, str]] = dict
    asking: Asking = field(default_factory=LockedAsking)

    @classmethod
    def of(cls, workspace: Workspace) -> Market:
        """The market of this computer: its ledger, its companies, its clock."""
        return cls.here()

    @classmethod
    def here(cls) -> Market:
        """The same, for who has no workspace."""
        return cls(Ledger(), company, time.time, time.sleep, steady_stamp)

    def ticks(self) -> float:
        """Seconds for measuring how long something takes: by the clock that nobody can set, where there is one."""
        moment = self.moment()
        return moment.at if moment.steady is None else moment.steady

    def moment(self) -> Moment:
        """Now, by both clocks."""
        return Moment.of(self.now(), self.stamp())
