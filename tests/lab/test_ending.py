"""The end of a pod, against a company in memory: what closes a row and what does not, whose pods are asked to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from podlab.errors import StateDamaged
from podlab.lab import ending
from podlab.lab.launches import Launch, Phase, find
from podlab.lab.market import Market
from podlab.ledger import Entry, Ledger
from podlab.renting import Policy, Rental, RentalState
from tests.lab.company import Clock, Company, launched, market_of

LATER_S = 600.0
"""By then a new pod is in every listing."""


class Full(Ledger):
    """A ledger on a disk that is full while `is_full`."""

    is_full = False

    def append_checked(
        self, verb: str, subject: str, decide: Callable[[list[Entry]], Mapping[str, str]]
    ) -> Entry:  # fmt: skip
        if self.is_full:
            raise StateDamaged("it cannot be written")
        return super().append_checked(verb, subject, decide)


class Hiding(Company):
    """Lists what it has as `shown` makes of it."""

    shown: Callable[[tuple[Rental, ...]], tuple[Rental, ...]] = staticmethod(lambda rentals: rentals)

    def list(self) -> tuple[Rental, ...]:
        return self.shown(super().list())


@pytest.fixture
def company(clock: Clock) -> Hiding:
    return Hiding(lambda: clock.true)


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Full:
    return Full(tmp_path / "ledger.jsonl", now=clock.now)


@pytest.fixture
def market(company: Hiding, clock: Clock, ledger: Full) -> Market:
    return market_of(company, clock, ledger)


def looked(market: Market, clock: Clock, id: str, times: int) -> Launch:
    for _ in range(times):
        clock.true += LATER_S
        known = find(market.ledger, id)
        assert known is not None
        known = ending.prove(market, known)
    return known


def test_a_row_of_two_pods_is_not_closed_by_the_end_of_the_one_that_is_listed(
    market: Market, company: Hiding, clock: Clock
) -> None:
    """The other one is hidden by the listing, and still billed: it is asked for by its id."""
    id, first = launched(company, market.ledger, armed=False)
    second = company.rent(first.name)
    market.ledger.append("rent.extra", id, rental=second.id)
    market.ledger.append("rent.ending", id, why="a test", brake="person")
    gone = Rental(second.id, second.name, RentalState.TERMINATED)
    company.terminate(second.id)
    company.shown = lambda rentals: (gone,)

    assert looked(market, clock, id, 1).is_open
    assert company.alive() == [], "the hidden one was asked to end"
    assert looked(market, clock, id, 3).phase is Phase.ENDED


def test_the_id_of_a_pod_that_could_not_be_written_down_when_it_came_is_written_at_its_end(
    market: Market, company: Hiding, ledger: Full
) -> None:
    id, machine = launched(company, ledger, live=False)
    row = find(ledger, id)
    assert row is not None and row.rental_id is None
    company.shown = lambda rentals: ()

    ending.end(market, Launch(**{**vars(row), "rental_id": machine.id}), why="a test", brake="create")

    after = find(ledger, id)
    assert after is not None and (after.rental_id, after.phase) == (machine.id, Phase.ENDING)
    assert company.alive() == []


def test_a_pod_is_asked_to_end_where_nothing_can_be_written(market: Market, company: Hiding, ledger: Full) -> None:
    id, machine = launched(company, ledger, live=False)
    row = find(ledger, id)
    assert row is not None
    ledger.is_full = True
    company.shown = lambda rentals: ()

    with pytest.raises(StateDamaged, match="could not be written down, and it was asked for all the same"):
        ending.end(market, Launch(**{**vars(row), "rental_id": machine.id}), why="a test", brake="create")

    assert company.alive() == []


@pytest.mark.parametrize("name", ["", "order", "order-1-1", "ORDER-1", "order-1 "])
def test_a_pod_of_somebody_else_is_never_touched_however_much_it_looks_like_ours(
    market: Market, company: Hiding, clock: Clock, name: str
) -> None:
    """Not even where a row lost its own name at the provider."""
    for order in ("order-1", ""):
        market.ledger.append("rent.ask", f"l{order}", name="order", order=order, provider="memory")
        market.ledger.append("rent.ending", f"l{order}", why="a test", brake="person")
    theirs = company.rent(name)

    for order in ("order-1", ""):
        assert looked(market, clock, f"l{order}", 3).phase is Phase.ENDED

    assert company.alive() == [theirs]
    assert "terminate" not in company.calls


def test_one_absence_proves_nothing(market: Market, company: Hiding, clock: Clock) -> None:
    id, _ = launched(company, market.ledger)
    ending.end(market, find(market.ledger, id), why="a test", brake="person")  # type: ignore[arg-type]

    first = looked(market, clock, id, 1)
    again = ending.prove(market, first)

    assert (first.is_open, again.is_open) == (True, True), "twice within the gap is once"
    assert looked(market, clock, id, 1).phase is Phase.ENDED


ITSELF = "it ended itself or was ended elsewhere"
DUE = "its switch was due at 2023-11-14 23:13 UTC by its deadline, or 10 min after the last word from here"


@pytest.mark.parametrize(
    ("verbs", "said"),
    [
        (("rent.armed",), f"{ITSELF}: {DUE}"),
        ((), "it was ended elsewhere: nobody here asked for it, and its switch was never armed"),
        (("rent.unclear", "rent.armed"), ITSELF),
        (("rent.armed", "rent.ending"), "a test"),
    ],
)
def test_a_row_says_what_may_have_ended_a_pod_that_nobody_here_did(
    market: Market, company: Hiding, clock: Clock, verbs: tuple[str, ...], said: str
) -> None:
    id, machine = launched(company, market.ledger, policy=Policy(deadline_at=clock.true + 3600, lease_s=600))
    for verb in verbs:
        market.ledger.append(verb, id, **({"why": "a test", "brake": "person"} if verb != "rent.armed" else {}))
    company.terminate(machine.id)

    after = looked(market, clock, id, 3)

    assert after.phase is Phase.ENDED
    assert after.why.startswith(said)
    assert after.brake == ("person" if "rent.ending" in verbs else "")


def test_what_two_processes_see_at_the_same_moment_is_one_absence(
    market: Market, company: Hiding, clock: Clock
) -> None:
    """Each has looked before the other wrote; whichever line comes behind theirs closes nothing."""
    id, machine = launched(company, market.ledger)
    company.terminate(machine.id)
    clock.true += LATER_S
    for _ in range(2):
        market.ledger.append("rent.absent", id)
        clock.true += 1.0
    market.ledger.append("rent.ended", id)

    row = find(market.ledger, id)
    assert row is not None and row.is_open and len(row.absent) == 2
    assert ending.prove(market, row).is_open
    lines = len(market.ledger.entries())
    assert ending.prove(market, row).is_open
    assert len(market.ledger.entries()) == lines, "the same absence is not written again and again"
    assert looked(market, clock, id, 1).phase is Phase.ENDED


def test_that_a_young_pod_is_missing_says_nothing(market: Market, company: Hiding, clock: Clock) -> None:
    """Lists are late: a pod that was made a moment ago is in none of them, nor known by its id."""
    id, machine = launched(company, market.ledger)
    machine.billed_until = clock.true  # to the company's own lists it does not exist yet
    row = find(market.ledger, id)
    assert row is not None
    for _ in range(5):
        clock.true += row.lag_s / 6
        row = ending.prove(market, row)
    assert row.absent == ()

    machine.billed_until = None
    assert ending.prove(market, row).phase is Phase.LIVE
    machine.billed_until = clock.true
    assert len(looked(market, clock, id, 1).absent) == 1


def test_a_listing_that_was_asked_for_long_ago_says_nothing(market: Market, company: Hiding, clock: Clock) -> None:
    """This process was stopped since, and others have looked meanwhile: an old absence must not count beside theirs."""
    id, _ = launched(company, market.ledger)
    clock.true += LATER_S
    company.terminate(next(iter(company.machines)))
    shown, row = ending.listing(market, "memory"), find(market.ledger, id)
    assert row is not None
    clock.true += ending.STALE_S + 1

    after = ending.look(market, row, shown)

    assert after.absent == () and after.is_open
