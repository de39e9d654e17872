"""The renting half of the contract for machines that somebody owns: there is none of it, and nothing to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from podlab.errors import BadArgument
from podlab.renting import Account, Bill, Offer, OfferQuery, Order, Rental, RentalLine


class RentsNothing:
    """Answers with nothing, and refuses what would change something. Touches no network."""

    name: str
    rents = False
    simulated = False
    lag_s = 0.0
    identity = ""

    def offers(self, query: OfferQuery) -> tuple[Offer, ...]:
        return ()

    def create(self, order: Order) -> Rental:
        raise BadArgument(
            f"Nothing can be rented from the provider {self.name!r}: its machines are somebody's own.",
            hint="Name one that rents: --provider runpod, or --provider sandbox, which costs nothing.",
        )

    def get(self, rental_id: str) -> Rental | None:
        return None

    def list(self) -> tuple[Rental, ...]:
        return ()

    def start(self, rental_id: str) -> None:
        raise self._not_rented("started")

    def stop(self, rental_id: str) -> None:
        raise self._not_rented("stopped")

    def terminate(self, rental_id: str) -> None:
        raise self._not_rented("ended")

    def logs(
        self, rental_id: str, *, source: Literal["container", "system"] | None = None, tail: int = 100,
        after: str | None = None, since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        return iter(())

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        return ()

    def account(self) -> Account:
        return Account(self.name, detail="Nothing is rented here, so there is no account.")

    def _not_rented(self, done: str) -> BadArgument:
        return BadArgument(
            f"A pod of the provider {self.name!r} is not rented, so podlab has not {done} it.",
            hint="To have podlab forget it: podlab pod remove NAME",
        )
