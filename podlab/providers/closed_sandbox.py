"""The sandbox while it is not open: it has no pods, for they end with it, and nothing can be asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from podlab.errors import NotFound
from podlab.renting import Account, Bill, Offer, OfferQuery, Order, Rental, RentalLine
from podlab.types import Pod


class ClosedSandbox:
    """Says truly that there are no pods, so that what was rented from it is closed in the ledger with proof."""

    name = "sandbox"
    rents = True
    simulated = True
    lag_s = 0.0
    identity = ""

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        raise self._closed()

    def offers(self, query: OfferQuery) -> tuple[Offer, ...]:
        raise self._closed()

    def create(self, order: Order) -> Rental:
        raise self._closed()

    def get(self, rental_id: str) -> Rental | None:
        return None

    def list(self) -> tuple[Rental, ...]:
        return ()

    def start(self, rental_id: str) -> None:
        raise self._closed()

    def stop(self, rental_id: str) -> None:
        raise self._closed()

    def terminate(self, rental_id: str) -> None:
        """It is gone already."""

    def logs(
        self, rental_id: str, *, source: Literal["container", "system"] | None = None, tail: int = 100,
        after: str | None = None, since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        raise self._closed()

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        return ()

    def account(self) -> Account:
        raise self._closed()

    def _closed(self) -> NotFound:
        return NotFound("The sandbox is not open.", hint="Open it: podlab sandbox up")
