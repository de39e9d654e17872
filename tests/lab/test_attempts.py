"""The intent: its name, the caps and the row, with no other process in between; and what is not what was ordered."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from podlab.errors import AlreadyExists, PodlabError, Refused, RentalFailed
from podlab.events import Work
from podlab.lab.attempts import Agreed, check, free_name, intend
from podlab.lab.candidates import Candidate
from podlab.lab.launches import Launch, Phase, all_launches, new_id
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.rent_wish import RentWish, wish_from
from podlab.ledger import Ledger
from podlab.renting import Offer, Policy, Rental, RentalState

OFFER = Offer("memory", "NVIDIA A40", "A40", 1, "secure", 0.4, data_centers=("EU-RO-1", "EU-SE-1"))
A40 = Candidate(OFFER, 0.41, 0.01, data_centers=("EU-RO-1",))
AGREED = Agreed(RentWish(provider="memory"), Policy(budget_usd=5.0))
NEW_YEAR = 1_798_761_600.0  # 2027-01-01T00:00:00Z


@dataclass
class Crew:
    """A computer with pods of these names and these caps; the rest is not asked for."""

    names: set[str] = field(default_factory=set)
    caps_: Caps = field(default_factory=lambda: Caps(max_pods=100))

    def taken(self) -> Collection[str]:
        return self.names

    def caps(self) -> Caps:
        return self.caps_

    def watched(self) -> str:
        raise NotImplementedError

    def start(self, launch: Launch, candidate: Candidate) -> tuple[tuple[str, ...], Mapping[str, str]]:
        raise NotImplementedError

    def keep(self, launch: Launch, rental: Rental) -> None:
        raise NotImplementedError

    def drop(self, launch: Launch) -> None:
        raise NotImplementedError

    def arrive(self, launch: Launch, rental: Rental, check: Callable[[Rental], None]) -> Work[None]:
        raise NotImplementedError


class Memory:
    lag_s = 120.0
    identity = "ours"


def market() -> Market:
    """Each call is another process's: they meet in the file."""
    return Market(Ledger(), lambda name: Memory(), time.time, time.sleep)  # type: ignore[arg-type,return-value]


def asked(crew: Crew, agreed: Agreed = AGREED) -> Launch | PodlabError:
    try:
        return intend(market(), agreed, A40, crew, new_id())
    except PodlabError as error:
        return error


def test_the_row_says_all_that_is_needed_to_find_the_pod_and_to_rent_it_again() -> None:
    wish = RentWish(provider="memory", name="lab", for_model="tiny", notebook="a.ipynb")

    launch = intend(market(), Agreed(wish, AGREED.policy), A40, Crew(), new_id())

    assert (launch.name, launch.phase, launch.model, launch.notebook) == ("lab", Phase.ASKED, "tiny", "a.ipynb")
    assert launch.order_name.startswith("lab-") and len(launch.order_name) == len("lab-") + 8
    assert (launch.agreed_usd_per_hour, launch.disk_usd_per_hour, launch.keys) == (0.41, 0.01, ("ours",))
    assert wish_from(launch.wish) == wish


def test_processes_at_the_same_time_get_names_of_their_own() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: asked(Crew()), range(8)))

    names = {launch.name for launch in found if isinstance(launch, Launch)}
    assert len(names) == 8
    assert sorted(name[-3:] for name in names) == [f"{number:03d}" for number in range(1, 9)]


def test_processes_at_the_same_time_stay_within_the_cap_together() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: asked(Crew(caps_=Caps(max_pods=3))), range(8)))

    assert sum(isinstance(each, Launch) for each in found) == 3
    assert sum(isinstance(each, Refused) for each in found) == 5
    assert len(all_launches(Ledger())) == 3, "what was refused has no row"


def test_processes_at_the_same_time_do_not_share_a_name() -> None:
    agreed = replace(AGREED, wish=RentWish(provider="memory", name="lab"))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: asked(Crew(), agreed), range(8)))

    assert sum(isinstance(each, Launch) for each in found) == 1
    assert sum(isinstance(each, AlreadyExists) for each in found) == 7


def test_a_default_name_is_the_day_and_one_more_than_the_highest_of_it() -> None:
    used = ["podlab-2027-01-01-001", "podlab-2027-01-01-041", "podlab-2026-12-31-099", "podlab-2027-01-01-x", "lab"]

    assert free_name(used, {"podlab-2027-01-01-042"}, NEW_YEAR) == "podlab-2027-01-01-043"
    assert free_name([], set(), NEW_YEAR) == "podlab-2027-01-01-001"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"usd_per_hour": 0.5}, r"it costs \$0.510/h, and \$0.410/h were agreed"),
        ({"gpu_id": "NVIDIA L4"}, "it has NVIDIA L4, and NVIDIA A40 was ordered"),
        ({"gpu_count": 0}, "it has 0 GPUs, and 1 were ordered"),
        ({"cloud": "community"}, "it is in the community cloud, and secure was ordered"),
        ({"data_center": "US-TX-1"}, "it is in US-TX-1, and EU-RO-1 was ordered"),
    ],
)
def test_what_came_is_held_against_what_was_ordered(change: dict[str, object], said: str) -> None:
    wish = RentWish(provider="memory", regions=("EU-RO-1",))
    came = Rental("r1", "lab-0", RentalState.RUNNING, "RUNNING", 0.4, "NVIDIA A40", 1, "secure", "EU-RO-1")
    check(A40, wish, came)
    check(A40, wish, Rental("r1", "lab-0", RentalState.PROVISIONING))

    with pytest.raises(RentalFailed, match=said) as failed:
        check(A40, wish, replace(came, **change))  # type: ignore[arg-type]

    assert failed.value.rental_id == "r1"


def test_ids_of_launches_are_nobody_elses() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000
