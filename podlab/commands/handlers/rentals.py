"""A rented pod as its document: what the ledger, its company, and whoever tends it say together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from podlab.commands.rent_results import RentalDetail
from podlab.errors import BadArgument, NotFound, PodlabError
from podlab.events import Notice, Work
from podlab.renting import RentalState

if TYPE_CHECKING:
    from podlab.lab.launches import Launch
    from podlab.lab.workspace import Workspace
    from podlab.renting import Rental
    from podlab.types import Pod

WHO = {
    "person": "a person", "kernel": "the notebook's brake", "keeper": "the keeper", "pod": "its own switch",
    "create": "its creation",
}  # fmt: skip
"""Who asked for an end, in words."""


def detail_of(launch: Launch, now: float, *, rental: Rental | None = None) -> RentalDetail:
    """One launch. Without `rental` its state is what was last noted; who guards it is read where it is noted."""
    from podlab.lab import money
    from podlab.lab.guarding import guard
    from podlab.lab.rented_names import called_here
    from podlab.lab.tender import tending_file

    (launch,) = called_here((launch,))
    policy = launch.policy
    guarded = guard(launch, tending_file()) if launch.is_open else None
    return RentalDetail(
        launch.name, launch.id, launch.provider, launch.simulated, _state(launch, rental), launch.order_name,
        launch.rental_id, launch.gpu, launch.gpu_count, launch.cloud, None if rental is None else rental.data_center,
        money.usd_per_hour(launch), money.spent_usd(launch, now), launch.billed_usd, policy.budget_usd,
        policy.deadline_at, policy.idle_s, policy.lease_s, launch.asked_at, None if rental is None else rental.uptime_s,
        "" if guarded is None else guarded.protection.value, "" if guarded is None else guarded.why,
        None if guarded is None else guarded.worst.usd, None if guarded is None else guarded.worst.until,
        "" if guarded is None else guarded.worst.why, launch.ended_at, _why(launch), launch.model, launch.notebook,
        () if rental is None else tuple(url for _, url in rental.proxy_urls),
    )  # fmt: skip


def of_pod(workspace: Workspace, pod: Pod) -> Work[RentalDetail | None]:
    """A rented pod of the registry, as its company has it now; what the ledger says where it does not answer."""
    from podlab.lab.launches import find
    from podlab.lab.market import Market

    market = Market.of(workspace)
    launch = find(market.ledger, pod.id)
    if launch is None:
        yield Notice(f"The ledger has no row of {pod.name}. See: podlab pod orphans", "warning")
        return None
    rental = None
    try:
        rental = market.provider(launch.provider).get(launch.rental_id) if launch.rental_id else None
    except PodlabError as error:
        yield Notice(f"{launch.provider} does not say how it is now: {error.message}", "warning")
    else:
        if launch.rental_id and launch.is_open and rental is None:
            said = f"{launch.provider} does not know {pod.name} now. What is told of it here is what it was before; it "
            yield Notice(f"{said}counts as billed until {launch.provider} has said so twice.", "warning")
        elif rental is not None and rental.state is RentalState.STOPPED:
            yield Notice(f"{pod.name} is stopped. Start it: podlab pod start {pod.name}")
    return detail_of(launch, market.now(), rental=rental)


def in_ledger(workspace: Workspace, name: str | None) -> RentalDetail | None:
    """A pod that only the ledger knows: ended, or lost from the list of pods; None where it knows none."""
    from podlab.lab.rented_names import launch_meant
    from podlab.ledger import Ledger

    try:
        return detail_of(launch_meant(workspace, Ledger(), name), time.time())
    except (NotFound, BadArgument):
        return None


def drop_ended(workspace: Workspace) -> None:
    """Take pods that are proven gone out of the list of pods: the proof may have come to the keeper."""
    from podlab.lab.open_rentals import OpenRentals
    from podlab.settings import home

    if OpenRentals(home()).were_any():
        from podlab.lab import rented
        from podlab.ledger import Ledger

        rented.drop_ended(workspace, Ledger())


def all_of(workspace: Workspace, *, ended: bool) -> tuple[RentalDetail, ...]:
    """The pods that may be billed, the newest first; with `ended` the others, too. Asks nobody."""
    return list_of(workspace, ended=ended)[0]


def list_of(
    workspace: Workspace, *, ended: bool, limit: int | None = None
) -> tuple[tuple[RentalDetail, ...], int]:  # fmt: skip
    """The same with `limit` ended ones at most, and how many are left out because of that. Of a damaged ledger what
    can still be read."""
    from podlab.lab.open_rentals import OpenRentals
    from podlab.settings import home

    if not OpenRentals(home()).were_any():
        return (), 0
    from podlab.lab.rented_names import launch_list
    from podlab.lab.salvage import endable
    from podlab.ledger import Ledger

    now = time.time()
    found = launch_list(endable(Ledger())[0], open_only=not ended)
    kept = limited(found, lambda launch: not launch.is_open, limit)
    return tuple(detail_of(launch, now) for launch in kept), len(found) - len(kept)


Row = TypeVar("Row")


def limited(rows: Iterable[Row], is_over: Callable[[Row], bool], limit: int | None) -> list[Row]:
    """The rows, but for those behind the first `limit` that are over: what may cost money is always there.

    Raises BadArgument for a number that is none.
    """
    if limit is None:
        return list(rows)
    if limit < 0:
        raise BadArgument(f"--limit {limit} is no number of rows.", hint="Give a number from 0.")
    over = itertools.count(1)
    return [row for row in rows if not is_over(row) or next(over) <= limit]


def _state(launch: Launch, rental: Rental | None) -> str:
    if launch.phase.value != "live":
        return launch.phase.value
    if rental is not None:
        return rental.state.value
    return launch.spans[-1].state.value if launch.spans else "asked"


def _why(launch: Launch) -> str:
    """Why it had to end, and who saw to it."""
    who = WHO.get(launch.brake, launch.brake)
    return f"{launch.why} ({who})" if launch.why and who and who not in launch.why else launch.why
