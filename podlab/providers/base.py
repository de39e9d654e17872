"""The contract of a provider: where pods come from. `lab/` is its only caller, from threads.

What exists already (this computer, a machine somebody owns) is *adopted*: nothing is created and nothing can be billed.
A provider that rents has `rents` True and keeps the rest of this contract; the others answer the same calls with what
they mean there: no offers, no rentals, no bills, and a refusal (BadArgument) to create, start, stop or end anything.
One conformance suite (tests/providers/test_conformance.py) holds all of them to it.

Every call may block, for DEADLINE_S at most whatever the other side does: a slow drip, an endless body, a silent
socket end in an error of ours. No call repeats a write by itself. What all raise:

- KeyRefused, NotAllowed, RateLimited, ApiRetired, OutOfFunds as their names say;
- ProviderUnavailable when a read has no usable answer (the caller may ask again later);
- OutcomeUnknown when a write was sent and its answer is missing or makes no sense: the caller must look before it
  writes again. A 404 to a write is no proof that a pod is gone, for listings lag behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, runtime_checkable

from podlab.renting import (
    Account,
    AccountKey,
    Bill,
    Offer,
    OfferQuery,
    Order,
    Registry,
    Rental,
    RentalLine,
    Template,
    TemplateDraft,
    Volume,
)
from podlab.secrets import Secret
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

    @property
    def lag_s(self) -> float:
        """How long a new pod may be missing from its listings: an absence means nothing before that."""
        ...

    @property
    def identity(self) -> str:
        """What tells one account's key from another's, and nothing of the key; "" where there is no account to mix up.

        A listing proves nothing about a pod that was rented with another account's key.
        """
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
        after: str | None = None, since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        """Its log lines, both sources unless one is named, oldest first. `after` is a line's id: only what came behind.
        `since` (epoch seconds by the provider's clock) begins there where no `after` is given. With either of them
        `tail` says nothing: the first of these lines come, some thousand at most.

        With `follow` it goes on until closed, resuming behind the last line after each cut. Raises NotFound.
        """
        ...

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        """What was billed in that span, pod by pod, also for pods that are gone."""
        ...

    def account(self) -> Account:
        """Balance and limits, as far as the key may see them."""
        ...


@runtime_checkable
class Belongings(Protocol):
    """What an account keeps at its provider besides pods. Whoever rents has it; the rules above hold here, too.

    What is deleted and was not there is left at that.
    """

    def volumes(self) -> tuple[Volume, ...]:
        """The network volumes. Each is billed until it is deleted."""
        ...

    def create_volume(self, name: str, *, size_gb: int, data_center: str, tier: str = "") -> Volume:
        """Rent a network volume. Never sent twice. Raises BadOrder, OutOfFunds; OutcomeUnknown: perhaps."""
        ...

    def delete_volume(self, volume_id: str) -> None:
        """Delete a volume and all that is on it."""
        ...

    def templates(self, *, public: bool = False) -> tuple[Template, ...]:
        """The account's own templates, or the provider's public ones."""
        ...

    def create_template(self, draft: TemplateDraft) -> Template:
        """Keep a named image with its settings. Never sent twice. Raises BadOrder; OutcomeUnknown: perhaps."""
        ...

    def delete_template(self, template_id: str) -> None:
        """Delete one of the account's own templates; pods made from it stay as they are."""
        ...

    def registries(self) -> tuple[Registry, ...]:
        """The logins to container registries, without their passwords."""
        ...

    def add_registry(self, name: str, *, user: str, password: Secret) -> Registry:
        """Keep a login at the provider, which shows its password to nobody again."""
        ...

    def delete_registry(self, registry_id: str) -> None:
        """Forget a login."""
        ...

    def account_keys(self) -> tuple[AccountKey, ...]:
        """The SSH public keys that the provider puts into new pods."""
        ...

    def add_account_key(self, text: str) -> tuple[AccountKey, ...]:
        """Add a public key, as a line of authorized_keys has it, beside those that are there; the keys then."""
        ...
