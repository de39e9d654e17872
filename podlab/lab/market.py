"""What renting stands on: the ledger, the providers, a clock and a way to wait. Passed in, so that a campaign can run
years of it in minutes on a clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podlab.ledger import Ledger
from podlab.providers.base import Provider


@dataclass(frozen=True)
class Market:
    """`provider` gives the one of a name, made at its first use; `now` is seconds since the epoch; `pause` waits."""

    ledger: Ledger
    provider: Callable[[str], Provider]
    now: Callable[[], float]
    pause: Callable[[float], None]
