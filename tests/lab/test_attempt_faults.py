"""One candidate, with something going wrong at each step: its pod is never lost, and never asked for too late."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from podlab.errors import ProviderUnavailable, RentalFailed, StateDamaged
from podlab.events import Stage, Work
from podlab.lab.attempts import LATE_S, Agreed, attempt
from podlab.lab.candidates import Candidate
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.rent_wish import RentWish
from podlab.ledger import Entry, Ledger
from podlab.renting import Offer, Order, Policy, Rental
from tests.lab.company import Clock, Company, Machine, market_of

OFFER = Offer("memory", "NVIDIA A40", "A40", 1, "secure", 0.95)
CANDIDATE = Candidate(OFFER, 1.0, 0.05)
AGREED = Agreed(RentWish(provider="memory", name="lab"), Policy(budget_usd=5.0))


class Selling(Company):
    """A company that rents out; `answering` happens between a pod's beginning and the answer. While `hides`, its pods
    are in no list yet."""

    hides = False

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.answering: Callable[[Machine], None] = lambda machine: None

    def create(self, order: Order) -> Rental:
        self._called("create")
        machine = self.rent(order.name)
        self.answering(machine)
        return self._rental(machine)

    def list(self) -> tuple[Rental, ...]:
        found = super().list()
        return () if self.hides else found


class Fragile(Ledger):
    """A ledger on a disk that is full while `is_full`."""

    is_full = False

    def append_checked(
        self, verb: str, subject: str, decide: Callable[[list[Entry]], Mapping[str, str]]
    ) -> Entry:  # fmt: skip
        if self.is_full:
            raise StateDamaged("it cannot be written")
        return super().append_checked(verb, subject, decide)


@dataclass
class Crew:
    """A computer on which a pod works at once, unless `keeping` or `arriving` does something else."""

    keeping: Callable[[], None] = lambda: None
    arriving: Callable[[], None] = lambda: None

    def taken(self) -> Collection[str]:
        return ()

    def caps(self) -> Caps:
        return Caps()

    def watched(self) -> str:
        return ""

    def start(self, launch: Launch, candidate: Candidate) -> tuple[tuple[str, ...], Mapping[str, str]]:
        return (), {}

    def keep(self, launch: Launch, rental: Rental) -> None:
        self.keeping()

    def drop(self, launch: Launch) -> None:
        pass

    def arrive(self, launch: Launch, rental: Rental, check: Callable[[Rental], None]) -> Work[None]:
        yield Stage("image", "on its way")
        self.arriving()


@pytest.fixture
def company(clock: Clock) -> Selling:
    return Selling(lambda: clock.true)


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Fragile:
    return Fragile(tmp_path / "ledger.jsonl", now=clock.now)


@pytest.fixture
def market(company: Selling, clock: Clock, ledger: Fragile) -> Market:
    return market_of(company, clock, ledger)


def stages(work: Work[Launch]) -> Iterator[str]:
    for event in work:
        assert isinstance(event, Stage)
        yield event.key


def row(ledger: Ledger) -> Launch:
    (launch,) = all_launches(ledger)
    return launch


def raising(error: BaseException) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


def test_a_pod_comes_of_it(market: Market, company: Selling, ledger: Fragile) -> None:
    assert list(stages(attempt(market, AGREED, CANDIDATE, Crew()))) == ["rented", "image"]
    (machine,) = company.alive()
    assert (row(ledger).phase, row(ledger).ids) == (Phase.LIVE, (machine.id,))


def test_an_order_is_not_sent_by_a_process_that_slept_since_its_intent(
    market: Market, company: Selling, ledger: Fragile, clock: Clock
) -> None:
    work = attempt(market, AGREED, CANDIDATE, Crew())
    assert next(stages(work)) == "rented"
    clock.pause(LATE_S + 1)

    with pytest.raises(ProviderUnavailable, match="slept between the intent and the order"):
        list(work)

    assert "create" not in company.calls
    assert row(ledger).phase is Phase.REFUSED


def test_an_order_is_not_sent_for_a_row_whose_end_was_asked_for(
    market: Market, company: Selling, ledger: Fragile
) -> None:
    work = attempt(market, AGREED, CANDIDATE, Crew())
    next(stages(work))
    ledger.append("rent.ending", row(ledger).id, why="it is not wanted", brake="person")

    with pytest.raises(ProviderUnavailable):
        list(work)

    assert "create" not in company.calls
    assert not row(ledger).is_open


@pytest.mark.parametrize("lists", [True, False])
def test_an_id_that_cannot_be_written_down_is_not_lost(
    market: Market, company: Selling, ledger: Fragile, lists: bool
) -> None:
    """The disk fills up while the order is answered; the pod is ended by its id, which the error has."""

    def fill(machine: Machine) -> None:
        ledger.is_full, company.hides = True, not lists

    company.answering = fill

    with pytest.raises(RentalFailed) as failed:
        list(attempt(market, AGREED, CANDIDATE, Crew()))

    (machine,) = company.machines.values()
    assert company.alive() == []
    assert failed.value.rental_id == machine.id
    assert row(ledger).is_open, "nothing of its end is proven"


@pytest.mark.parametrize("crew", [Crew(keeping=raising(ValueError("a bug"))), Crew(arriving=raising(OSError(5, "x")))])
def test_no_exception_leaves_a_pod_behind(market: Market, company: Selling, ledger: Fragile, crew: Crew) -> None:
    with pytest.raises(RentalFailed) as failed:
        list(attempt(market, AGREED, CANDIDATE, crew))

    (machine,) = company.machines.values()
    assert company.alive() == []
    assert failed.value.rental_id == machine.id
    assert (row(ledger).phase, row(ledger).brake) == (Phase.ENDING, "create")


@pytest.mark.parametrize("at", ["rented", "answer", "keep", "image"])
def test_an_interrupt_anywhere_ends_the_pod(market: Market, company: Selling, ledger: Fragile, at: str) -> None:
    crew = Crew(keeping=raising(KeyboardInterrupt()) if at == "keep" else lambda: None)
    if at == "answer":  # while it is waited for: nobody here knows its id yet
        company.answering = lambda machine: raising(KeyboardInterrupt())()
    work = attempt(market, AGREED, CANDIDATE, crew)

    with pytest.raises(KeyboardInterrupt):
        for event in work:
            if isinstance(event, Stage) and event.key == at:
                work.throw(KeyboardInterrupt())

    assert company.alive() == []
    assert row(ledger).phase is (Phase.REFUSED if at == "rented" else Phase.ENDING)
    assert "interrupted" in row(ledger).why


def test_work_that_is_given_up_ends_its_pod(market: Market, company: Selling, ledger: Fragile) -> None:
    """A kernel that is shut down closes what it was at."""
    work = attempt(market, AGREED, CANDIDATE, Crew())
    assert [next(stages(work)) for _ in range(2)] == ["rented", "image"]
    work.close()

    assert company.alive() == []
    assert row(ledger).phase is Phase.ENDING


def test_of_two_pods_of_one_order_the_one_that_was_adopted_is_kept(
    market: Market, company: Selling, ledger: Fragile
) -> None:
    """The answer is late, and somebody who tends finds the other one first."""

    def adopt(machine: Machine) -> None:
        other = company.rent(machine.name)
        ledger.append("rent.live", row(ledger).id, rental=other.id, usd_per_hour="1.0")

    company.answering = adopt

    list(attempt(market, AGREED, CANDIDATE, Crew()))

    first, second = company.machines.values()
    assert company.alive() == [second]
    assert (row(ledger).rental_id, row(ledger).extra_ids) == (second.id, (first.id,))
