"""The ledger held against what providers list and bill: whose every pod is, and what nobody owns.

It is done when podlab is loaded, when a panel opens, before a create, and again and again by the keeper. Several
processes may do it at the same time. What is ours and has to end is ended; what came twice of one order is ended but
for one; what is not ours is told and never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from podlab.errors import PodlabError
from podlab.lab.ending import Listing, listing, look
from podlab.lab.launches import LAG_S, Launch, Phase, all_launches
from podlab.lab.market import Market
from podlab.providers.base import Provider
from podlab.renting import BILLING, Bill, Rental

BILLED_S = 2 * 3600.0
"""How far back bills are looked through: providers bill by the hour."""


@dataclass(frozen=True)
class Owned:
    """A launch of ours, and its pod as its provider lists it. None: it is not listed now."""

    launch: Launch
    rental: Rental | None


@dataclass(frozen=True)
class Reconciled:
    """What a look at every provider found."""

    ours: tuple[Owned, ...] = ()
    """Rows that are open afterwards."""
    gone: tuple[Launch, ...] = ()
    """Rows that were closed just now, with proof."""
    foreign: tuple[tuple[str, Rental], ...] = ()
    """Pods that no row of this ledger asked for, with their provider. They are never touched."""
    duplicates: tuple[tuple[str, Rental], ...] = ()
    """Further pods that came of one order of ours, with their provider; their end was asked for."""
    unlisted: tuple[tuple[str, Bill], ...] = ()
    """Bills for what is listed nowhere, with their provider: an alarm."""
    problems: tuple[str, ...] = ()
    """What could not be asked, a sentence each: nothing is claimed about it."""
    looked_at: tuple[str, ...] = ()
    """Providers that answered."""


def reconcile(market: Market, *, providers: Iterable[str] = (), bills: bool = False) -> Reconciled:
    """Look at every provider that an open row names, and at `providers`; with `bills` also at what they billed.

    Raises StateDamaged when the ledger cannot be trusted or written. A provider without an answer is a problem that
    is told, and its rows stay as they are.
    """
    before = all_launches(market.ledger)
    names = dict.fromkeys((*(launch.provider for launch in before if launch.is_open), *providers))
    return merged([_of_provider(market, name, before, bills=bills) for name in names])


def listed(market: Market, name: str, shown: Listing) -> Reconciled:
    """What one listing of a provider says; ours is written down and acted on as `look` does."""
    rentals = shown.rentals
    before = tuple(launch for launch in all_launches(market.ledger) if launch.provider == name)
    ours: list[Owned] = []
    gone: list[Launch] = []
    problems: list[str] = []
    for launch in before:
        mine = [rental for rental in rentals if rental.id in launch.ids or rental.name == launch.order_name]
        if not launch.is_open and not any(rental.state in BILLING for rental in mine):
            continue
        try:
            after = look(market, launch, shown)
        except PodlabError as error:
            problems.append(f"{launch.name}: {error.message}")
            after = launch
        if after.is_open:
            kept = next((rental for rental in mine if rental.id == after.rental_id), None)
            ours.append(Owned(after, kept))
        elif launch.is_open:
            gone.append(after)
    foreign, duplicates = _others(all_launches(market.ledger), name, rentals)
    return Reconciled(
        tuple(ours), tuple(gone), tuple((name, each) for each in foreign), tuple((name, each) for each in duplicates),
        (), tuple(problems), (name,),
    )  # fmt: skip


def merged(found: Sequence[Reconciled]) -> Reconciled:
    """All of them as one."""
    return Reconciled(
        tuple(each for one in found for each in one.ours),
        tuple(each for one in found for each in one.gone),
        tuple(each for one in found for each in one.foreign),
        tuple(each for one in found for each in one.duplicates),
        tuple(each for one in found for each in one.unlisted),
        tuple(each for one in found for each in one.problems),
        tuple(each for one in found for each in one.looked_at),
    )


def _of_provider(market: Market, name: str, before: Sequence[Launch], *, bills: bool) -> Reconciled:
    open_rows = tuple(Owned(launch, None) for launch in before if launch.is_open and launch.provider == name)
    try:
        provider = market.provider(name)
        if not provider.rents:
            return Reconciled()
        shown = listing(market, name)
    except PodlabError as error:
        return Reconciled(ours=open_rows, problems=(f"{name} could not be asked: {error.message}",))
    found = listed(market, name, shown)
    if not bills:
        return found
    try:
        return merged([found, Reconciled(unlisted=tuple(_unlisted(market, shown.provider, shown.rentals)))])
    except PodlabError as error:
        return merged([found, Reconciled(problems=(f"The bills of {name} could not be read: {error.message}",))])


def _others(
    launches: Sequence[Launch], name: str, rentals: Sequence[Rental]
) -> tuple[list[Rental], list[Rental]]:  # fmt: skip
    """Of a listing, what no row asked for, and what came beside the pod that a row has."""
    mine = {launch.order_name: launch for launch in launches if launch.provider == name}
    by_id = {each: launch for launch in mine.values() for each in launch.ids}
    foreign: list[Rental] = []
    duplicates: list[Rental] = []
    for rental in rentals:
        launch = by_id.get(rental.id) or mine.get(rental.name)
        if rental.state not in BILLING:
            continue
        if launch is None:
            foreign.append(rental)
        elif rental.id != launch.rental_id:
            duplicates.append(rental)
    return foreign, duplicates


def _unlisted(market: Market, provider: Provider, rentals: Sequence[Rental]) -> Iterator[tuple[str, Bill]]:
    """Bills that go on for something that is not listed: a pod of ours after its proven end, or one that a listing
    hides. A bill for the hour in which a pod ended is none."""
    now = market.now()
    shown = {rental.id for rental in rentals}
    ended = {
        each: launch for launch in all_launches(market.ledger) for each in launch.ids if launch.phase is Phase.ENDED
    }
    for bill in provider.bills(since=now - BILLED_S, until=now):
        if bill.rental_id in shown or bill.usd <= 0:
            continue
        launch = ended.get(bill.rental_id)
        if launch is not None:
            if launch.ended_at is not None and bill.begins_at > launch.ended_at + LAG_S:
                yield provider.name, bill
        elif (rental := provider.get(bill.rental_id)) is not None and rental.state in BILLING:
            yield provider.name, bill
