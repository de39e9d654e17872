"""The contract of a provider: where pods come from. `lab/` is its only caller, from threads.

What exists already (this computer, a machine somebody owns) is *adopted*: nothing is created and nothing can be billed.
A provider that rents has `rents` True and keeps the rest of this contract; the others answer the same calls with what
they mean there: no offers, no bills, a refusal to create. One conformance suite (tests/providers/test_conformance.py)
holds all of them to it.

Every call may block, for DEADLINE_S at most whatever the other side does: a slow drip, an endless body, a silent
socket end in an error of ours. No call repeats a write by itself. What all raise:

- KeyRefused, NotAllowed, RateLimited, ApiRetired, OutOfFunds as their names say;
- ProviderUnavailable when a read has no usable answer (the caller may ask again later);
- OutcomeUnknown when a write was sent and its answer is missing or makes no sense: the caller must look before it
  writes again. A 404 to a write is no proof that a pod is gone, for listings lag behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from podlab.renting import Account, Bill, Offer, OfferQuery, Order, Rental, RentalLine
from podlab.types import Pod

DEADLINE_S = 30.0


class Provider(Protocol):
    """A source of pods. Safe to use from several threads."""

    @property
    def name(self) -> str:
        """As it stands in `Pod.provider`."""
        ...

    @property
    def rents(self) -> bool:
        """Whether pods are created here, and cost money."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether all of it is pretended; whatever is shown of it says so."""
        ...

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        """A pod for the machine that `address` names, as a person wrote it. Touches no network and no file.

        Raises BadArgument naming what in the address cannot be understood.
        """
        ...

    def offers(self, query: OfferQuery) -> tuple[Offer, ...]:
        """What could be rented now, in no order. () where nothing is rented."""
        ...

    def create(self, order: Order) -> Rental:
        """Rent a pod. Never sent twice. Called only after the ledger holds the intent.

        Raises OutOfStock, OutOfFunds, BadOrder, NotAllowed: certainly nothing was created. OutcomeUnknown: perhaps.
        """
        ...

    def get(self, rental_id: str) -> Rental | None:
        """A pod now. None: the provider says it knows none of that id, which just after a create means little."""
        ...

    def list(self) -> tuple[Rental, ...]:
        """Every pod of the account, other people's and cluster members included, all pages; terminated ones may be
        missing or named so."""
        ...

    def start(self, rental_id: str) -> None:
        """Start a stopped pod. What already runs is left alone. Raises OutOfStock when its machine has no free GPU,
        WrongState, NotFound."""
        ...

    def stop(self, rental_id: str) -> None:
        """Stop a pod: its GPU is given back, its disk is billed on. What is stopped is left alone."""
        ...

    def terminate(self, rental_id: str) -> None:
        """Ask for the end of a pod. Returns when the provider accepted that, or says it knows no such pod: neither is
        proof. Raises WrongState for a locked one."""
        ...

    def logs(
        self, rental_id: str, *, source: Literal["container", "system"] | None = None, tail: int = 100,
        after: str | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        """Its log lines, both sources unless one is named, oldest first. `after` is a line's id: only what came behind.

        With `follow` it goes on until closed, resuming behind the last line after each cut. Raises NotFound.
        """
        ...

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        """What was billed in that span, pod by pod, also for pods that are gone."""
        ...

    def account(self) -> Account:
        """Balance and limits, as far as the key may see them."""
        ...
