"""The caps on all pods, held before anything is asked of a company: when a pod is rented, and when one starts again."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.errors import Refused
from podlab.lab import renting, tenure
from podlab.lab.launches import Launch, find
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.rent_wish import RentWish
from podlab.ledger import Ledger
from podlab.renting import Offer, OfferQuery, RentalState
from tests.audiences import Silent
from tests.lab.company import Clock, Company, launched, market_of
from tests.lab.test_attempts import Crew

TIGHT = {
    "number": (Caps(max_pods=1), "rent.max_pods is 1"),
    "day": (Caps(per_day_usd=0.05), "of the day's"),
    "total": (Caps(total_usd=0.05), "for all pods"),
}
tight = pytest.mark.parametrize(("caps", "said"), TIGHT.values(), ids=TIGHT.keys())


class Offering(Company):
    """A company with one kind of machine."""

    def offers(self, query: OfferQuery) -> tuple[Offer, ...]:
        return (Offer("memory", "NVIDIA A40", "A40", 1, "secure", 0.4, stock="high", simulated=True),)

    def start(self, rental_id: str) -> None:
        self._called("start")


@pytest.fixture
def company(clock: Clock) -> Offering:
    return Offering(lambda: clock.true)


@pytest.fixture
def market(tmp_path: Path, company: Offering, clock: Clock) -> Market:
    return market_of(company, clock, Ledger(tmp_path / "ledger.jsonl", now=clock.now))


def known(market: Market, id: str) -> Launch:
    found = find(market.ledger, id)
    assert found is not None
    return found


@tight
def test_nobody_is_asked_for_a_yes_that_a_cap_does_not_allow(
    market: Market, company: Offering, caps: Caps, said: str
) -> None:
    launched(company, market.ledger)
    audience = Silent(True)

    with pytest.raises(Refused, match=said):
        drive(renting.create(market, RentWish(provider="memory", gpus=("A40",)), Crew(caps_=caps)), audience)

    assert audience.asked == []
    assert len(company.machines) == 1


@tight
def test_a_stopped_pod_is_not_started_where_a_cap_does_not_allow_it(
    market: Market, company: Offering, caps: Caps, said: str
) -> None:
    launched(company, market.ledger)
    id, machine = launched(company, market.ledger)
    machine.state = RentalState.STOPPED
    audience = Silent(True)

    with pytest.raises(Refused, match=said):
        drive(tenure.start(market, known(market, id), Crew(caps_=caps)), audience)

    assert audience.asked == []
    assert "start" not in company.calls
