"""From a rented pod to one that works, on a clock of the test's own: what its log says in time is not lost in noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podlab.commands.drive import drive
from podlab.errors import NotFound, Unreachable
from podlab.events import Work
from podlab.lab import readiness
from podlab.lab.attempts import BadDraw
from podlab.lab.launches import Launch, find
from podlab.lab.market import Market
from podlab.ledger import Ledger
from podlab.renting import Armed, Rental, RentalLine
from tests.audiences import Silent
from tests.lab.company import Clock, Company, launched, market_of

PRINT, OTHER = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43
KEY, FALSE_KEY = f"podlab: host key ssh-ed25519 {PRINT}", f"podlab: host key ssh-ed25519 {OTHER}"
ARMED = 'podlab: armed {"serial": 0}'
NOISE = 50_000
PIECE = 5000
"""So many lines RunPod gives at once, and of those behind a place or a time the first ones."""


class Talking(Company):
    """A company with a log for its one pod."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.lines: list[RentalLine] = []

    def say(self, *texts: str) -> None:
        for text in texts:
            self.lines.append(RentalLine(str(len(self.lines)), self._now(), "container", text))

    def logs(
        self, rental_id: str, *, source: str | None = None, tail: int = 100, after: str | None = None,
        since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        if after is not None:
            return iter(self.lines[int(after) + 1 :][:PIECE])
        if since is not None:
            return iter([line for line in self.lines if line.at is not None and line.at >= since][:PIECE])
        return iter(self.lines[-min(tail, PIECE) :])


class Way:
    """How the pod is reached: it answers at the first call, and says which keys were held against its own."""

    def __init__(self) -> None:
        self.fingerprints: tuple[str, ...] = ()
        self.asked: list[str] = []

    def moved(self, launch: Launch, rental: Rental) -> None:
        pass

    def knock(self, launch: Launch, fingerprints: tuple[str, ...]) -> Work[str]:
        self.fingerprints = fingerprints
        yield from ()
        return "log"

    def beat(self, launch: Launch) -> Armed:
        self.asked.append("beat")
        return Armed(True)

    def cuda(self, launch: Launch) -> str:
        return ""


@pytest.fixture
def company(clock: Clock) -> Talking:
    return Talking(lambda: clock.true)


@pytest.fixture
def market(tmp_path: Path, company: Talking, clock: Clock) -> Market:
    return market_of(company, clock, Ledger(tmp_path / "ledger.jsonl", now=clock.now))


def arrive(market: Market, company: Talking, way: Way, id: str) -> Silent:
    launch = find(market.ledger, id)
    assert launch is not None and launch.rental_id is not None
    rental = company.get(launch.rental_id)
    assert rental is not None
    audience = Silent()
    drive(readiness.arrive(market, launch, rental, lambda seen: None, way), audience)
    return audience


@pytest.mark.parametrize("noise_first", [True, False])
def test_what_a_pod_said_first_is_heard_however_much_it_has_said_since(
    market: Market, company: Talking, noise_first: bool
) -> None:
    """All of it is there before the first look. Whoever is in the container by then may claim another key in vain."""
    id, _ = launched(company, market.ledger)
    noise = ["Collecting package"] * NOISE
    company.say(*noise[: 4000 if noise_first else 0], KEY, ARMED, *noise, FALSE_KEY)
    way = Way()

    arrive(market, company, way, id)

    assert way.fingerprints == (PRINT,)


def test_a_key_that_was_read_is_kept_while_the_image_talks(market: Market, company: Talking, clock: Clock) -> None:
    """The switch is armed only after many looks, with thousands of lines between any two of them."""
    id, _ = launched(company, market.ledger)
    looks = 0

    def look(call: str) -> None:
        nonlocal looks
        if call == "get":
            looks += 1
            company.say(*([KEY] if looks == 1 else []), *["Collecting package"] * (NOISE // 10), FALSE_KEY)
            if looks == 12:
                company.say(ARMED)

    company.fault = look
    way = Way()

    arrive(market, company, way, id)

    assert way.fingerprints == (PRINT,)
    assert looks > 12


def test_a_pod_that_is_not_known_yet_and_has_no_log_yet_is_waited_for(market: Market, company: Talking) -> None:
    """A company was seen to answer 404 for a pod that it had just made, and for its log for some seconds more."""
    id, _ = launched(company, market.ledger)
    company.say(KEY, ARMED)
    real_get, real_logs, looks = company.get, company.logs, 0

    def get(rental_id: str) -> Rental | None:
        nonlocal looks
        looks += 1
        return real_get(rental_id) if looks > 4 else None

    def logs(rental_id: str, **how: Any) -> Iterator[RentalLine]:
        if looks < 7:
            raise NotFound(f"show the log of pod {rental_id}: 404")
        return real_logs(rental_id, **how)

    company.get, company.logs = get, logs  # type: ignore[method-assign]
    way = Way()
    launch = find(market.ledger, id)
    assert launch is not None and launch.rental_id is not None
    rental = real_get(launch.rental_id)
    assert rental is not None
    drive(readiness.arrive(market, launch, rental, lambda seen: None, way), Silent())

    assert way.fingerprints == (PRINT,) and looks >= 7


def test_a_log_by_a_clock_that_is_behind_is_heard_of_a_pod_that_never_was_stopped(
    market: Market, company: Talking, clock: Clock
) -> None:
    """Its first words are older than the start that its company tells."""
    id, _ = launched(company, market.ledger)
    company.say(KEY, ARMED)
    started_at = clock.true + 3
    real = company.get

    def get(rental_id: str) -> Rental | None:
        found = real(rental_id)
        return None if found is None else replace(found, started_at=started_at)

    company.get = get  # type: ignore[method-assign]
    way = Way()

    arrive(market, company, way, id)

    assert way.fingerprints == (PRINT,)


def test_a_log_that_begins_late_is_read_again_from_its_beginning(market: Market, company: Talking) -> None:
    """The first look came to its end before the log's beginning did, and later ones ask behind what was there."""
    id, _ = launched(company, market.ledger)
    company.say(KEY, ARMED, "serving")
    real, whole = company.logs, 0

    def logs(rental_id: str, *, after: str | None = None, **how: Any) -> Iterator[RentalLine]:
        nonlocal whole
        whole += after is None
        lines = list(real(rental_id, after=after, **how))
        return iter(lines[-1:] if whole == 1 else lines)

    company.logs = logs  # type: ignore[method-assign]
    way = Way()

    arrive(market, company, way, id)

    assert way.fingerprints == (PRINT,) and whole == 2


def test_a_pod_whose_switch_never_says_that_it_is_armed_is_a_bad_draw(market: Market, company: Talking) -> None:
    id, _ = launched(company, market.ledger)
    company.say(KEY, "podlab: not armed: HTTP 401")
    way = Way()

    with pytest.raises(BadDraw, match="its switch was not armed .HTTP 401. after 5 min"):
        arrive(market, company, way, id)

    assert way.asked == []


def test_a_switch_that_says_so_in_the_log_is_asked_itself_before_it_counts(market: Market, company: Talking) -> None:
    """Anybody in the container can write that line."""
    id, _ = launched(company, market.ledger)
    company.say(KEY, ARMED)
    way = Way()
    way.beat = lambda launch: Armed(False, "it has no key")  # type: ignore[method-assign]

    with pytest.raises(BadDraw, match="its switch is not armed: it has no key"):
        arrive(market, company, way, id)

    assert [entry.verb for entry in market.ledger.entries()] == ["rent.ask", "rent.live"]


def test_a_pod_whose_switch_was_armed_is_waited_for_without_its_log(market: Market, company: Talking) -> None:
    """Its first lines are gone from the company's log; it was armed since its start, and is asked again."""
    id, _ = launched(company, market.ledger)
    market.ledger.append("rent.armed", id)
    company.say(*["serving"] * 100)
    way = Way()

    arrive(market, company, way, id)

    assert way.asked == ["beat"]


def test_a_pod_that_does_not_answer_for_its_time_is_a_bad_draw(market: Market, company: Talking) -> None:
    id, _ = launched(company, market.ledger)
    company.say(KEY, ARMED)

    class Deaf(Way):
        def knock(self, launch: Launch, fingerprints: tuple[str, ...]) -> Work[str]:
            yield from ()
            raise Unreachable("no route")

    with pytest.raises(BadDraw, match="does not answer by SSH .no route"):
        arrive(market, company, Deaf(), id)
