"""What renting stands on: the ledger, the providers, a clock and a way to wait. Passed in, so that a campaign can run
years of it in minutes on a clock of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podlab.ledger import Ledger
from podlab.providers.base import Provider
from podlab.providers.companies import company

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


@dataclass(frozen=True)
class Market:
    """`provider` gives the one of a name, made at its first use; `now` is seconds since the epoch; `pause` waits."""

    ledger: Ledger
    provider: Callable[[str], Provider]
    now: Callable[[], float]
    pause: Callable[[float], None]

    @classmethod
    def of(cls, workspace: Workspace) -> Market:
        """The market of this computer: its ledger, its companies, its clock."""
        return cls(Ledger(), company, time.time, time.sleep)
