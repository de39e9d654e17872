"""Whatever goes wrong: no pod is billed past its limits, none twice, none that is not ours is touched, no row is closed
without proof, and no id is lost. Every history is the same each time it is played; a failure names its plan.

The whole campaign is `scripts/campaign`; here a sample of it.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import pytest

from podlab.lab import ending
from podlab.ledger import Ledger
from podlab.settings import home
from tests.campaign.clockwork import BEGINNING, Blow
from tests.campaign.desk import DRAWS, FAULTS, Asking
from tests.campaign.histories import Plan, Played, play, random_plan
from tests.campaign.town import BOOT_GRACE_S, GRACE_S, Town

T = TypeVar("T")
FULL = bool(os.environ.get("PODLAB_FULL"))
PAIRS = int(os.environ.get("PODLAB_PAIRS") or 0) or (None if FULL else 400)
"""How many pairs of faults, drawn by a seed; None is all of them, which takes the better part of an hour."""
HISTORIES = 100_000 if FULL else 1000
BLOWS = (Blow("kill"), Blow("interrupt"), Blow("sleep", 45.0), Blow("sleep", 700.0))
CALM = Plan(then="terminate")
PROGRAMS = ("nothing", "terminate", "rest")
JUMPS = ((5.0, 7200.0), (60.0, 7200.0), (600.0, 7200.0), (5.0, -7200.0), (60.0, -7200.0), (600.0, -7200.0))
REBOOTS = ((0.5, 60.0), (3.0, 60.0), (18.0, 900.0), (200.0, 100.0), (200.0, 2400.0), (1195.0, 60.0))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Those who tend log each end of a pod; a campaign ends a hundred thousand."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Single:
    """One thing that goes wrong, as a change of a plan; `then` is what a person does later where it must be that."""

    name: str
    change: Callable[[Plan], Plan]
    then: str = ""

    def plan(self, turn: int) -> Plan:
        """The plan in which only this goes wrong."""
        return self.change(replace(CALM, then=self.then or PROGRAMS[turn % len(PROGRAMS)]))


@cache
def singles() -> tuple[Single, ...]:
    """Every fault at every step of a create, of rounds of tending, of a terminate, a stop and a start; every bad
    machine; every blow at every point; the death of this computer, its reboot, a clock that is set, and a provider
    that nobody reaches, each at times that matter."""
    found: list[Single] = []
    for then, actors in (("terminate", ("create", "keeper", "terminate")), ("rest", ("rest",))):
        calm = play(replace(CALM, then=then))
        assert calm.violations == []
        for who in actors:
            only = then if who == then else ""
            found += [
                Single(f"{who} step {n} ({step}): {fault}", _with_fault((who, n, fault)), only)
                for n, step in enumerate(calm.town.steps[who][:40], 1) for fault in FAULTS.get(step, ())
            ]  # fmt: skip
            if who != "keeper":
                found += [
                    Single(f"{who} point {n} ({point}): {blow}", _with_blow((who, n, blow)), only)
                    for n, point in enumerate(calm.processes[who].points, 1) for blow in BLOWS
                ]  # fmt: skip
    found += [Single(f"the first machine: {draw}", _with_draw((1, draw))) for draw in DRAWS]
    found += [
        Single(f"the computer dies after {after_s} s", lambda plan, it=after_s: replace(plan, dies_after_s=float(it)))
        for after_s in (0, 1, 2, 5, 10, 15, 16, 20, 30, 60, 300, 900)
    ]
    found += [
        Single(
            f"nobody reaches the provider from {at} s on", lambda plan, it=at: replace(plan, down=(float(it), 300.0))
        )
        for at in (0, 1, 2, 5, 12, 20, 60, 300, 800)
    ]
    found += [Single(f"the clock is set: {jump}", lambda plan, it=jump: replace(plan, jumps=(it,))) for jump in JUMPS]
    found += [
        Single(f"the key is another account's from {at} s on", lambda plan, it=at: replace(plan, elsewhere=(it, 400.0)))
        for at in (0.0, 2.0, 15.0, 100.0, 600.0, 1190.0, 1230.0)
    ]
    found += [Single(f"a reboot: {when}", lambda plan, it=when: replace(plan, reboot=it)) for when in REBOOTS]
    return tuple(found)


def _with_fault(fault: tuple[str, int, str]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, faults=(*plan.faults, fault))


def _with_draw(draw: tuple[int, str]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, draws=(*plan.draws, draw))


def _with_blow(blow: tuple[str, int, Blow]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, blows=(*plan.blows, blow))


def violated(plan: Plan) -> str:
    """What a history violates, with its plan; "" for nothing."""
    logging.disable(logging.CRITICAL)
    try:
        found = play(plan).violations
    except Exception as error:  # noqa: BLE001  # told with the plan that shows it
        found = [f"{type(error).__name__}: {error}"]
    return f"{'; '.join(found)} in {plan}" if found else ""


def usd_at_risk(played: Played) -> float:
    """Dollars beyond what a person wanted to pay: behind the limits of the pods, and, where this computer died, all
    that was billed afterwards. Pods that no switch and nobody here could end are not in it: see the test of them."""
    town, died_after_s = played.town, played.plan.dies_after_s
    if died_after_s is None:
        late = ((town.late_s(made, tended=True), made) for made in town.made if not town.is_kept(made))
    else:
        died_at = BEGINNING + died_after_s
        late = (
            ((made.terminated_at or town.clock.now) - max(died_at, made.created_at), made)
            for made in town.made if town.is_switched(made)
        )  # fmt: skip
    return sum(max(0.0, late_s) * made.usd_per_hour / 3600 for late_s, made in late)


def test_a_calm_history_costs_what_it_should() -> None:
    played = play(CALM)

    assert played.violations == []
    assert [made.status.value for made in played.town.made] == ["TERMINATED"]
    assert 0 < played.town.usd() < 0.1


def test_every_single_fault(record_property: Callable[[str, object], None]) -> None:
    worst = (0.0, "")
    broken = []
    for turn, single in enumerate(singles()):
        for again in range(3 if FULL and not single.then else 1):
            played = play(single.plan(turn + again))
            if played.violations:
                broken.append(f"{single.name}: {'; '.join(played.violations)}")
            worst = max(worst, (usd_at_risk(played), single.name))

    assert not broken, "\n".join(broken[:20])
    record_property("single faults", len(singles()))
    record_property("dollars at risk, worst, of a pod at $0.40/h", f"{worst[0]:.3f} ({worst[1]})")
    print(f"{len(singles())} single faults; at the worst ${worst[0]:.3f} of a pod at $0.40/h: {worst[1]}")
    assert worst[0] <= 0.40 * (BOOT_GRACE_S + GRACE_S) / 3600


def test_every_pair_of_faults(record_property: Callable[[str, object], None]) -> None:
    pairs = list(itertools.combinations(singles(), 2))
    if PAIRS is not None:
        pairs = random.Random(4).sample(pairs, PAIRS)

    plans = (second.change(first.plan(turn)) for turn, (first, second) in enumerate(pairs))
    broken = [said for said in _by_all(violated, plans) if said]

    assert not broken, "\n".join(broken[:20])
    record_property("pairs of faults", len(pairs))


def test_random_histories(record_property: Callable[[str, object], None]) -> None:
    broken = [said for said in _by_all(_by_seed, range(HISTORIES)) if said]

    assert not broken, "\n".join(broken[:20])
    record_property("random histories", HISTORIES)


def _by_all(judge: Callable[[T], str], what: Iterable[T]) -> Iterator[str]:
    """What `judge` says of each; in full on all processors."""
    if not FULL:
        yield from map(judge, what)
        return
    # Played towns are held by what waits in them for ever; a worker takes them along when it ends.
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=10) as pool:
        yield from pool.imap_unordered(judge, what, chunksize=200)


def _by_seed(seed: int) -> str:
    return violated(random_plan(seed))


def test_what_nobody_can_end_is_a_machine_that_never_starts_and_a_computer_that_is_gone() -> None:
    """The hole that is left: a company without a timer of its own, a pod whose switch never ran, and nobody here."""
    plan = Plan(draws=((1, "no-runtime"),), dies_after_s=60.0)

    played = play(plan)

    assert played.violations == []
    assert [made.status.value for made in played.town.made] == ["RUNNING"]
    assert play(replace(plan, dies_after_s=None)).violations == [], "with somebody here it is ended"


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_is_set_ends_nothing_early_and_keeps_nothing_alive(jump: tuple[float, float]) -> None:
    played = play(Plan(jumps=(jump,)))

    assert played.violations == []
    (made,) = played.town.made
    assert made.terminated_at is not None
    assert abs(made.terminated_at - BEGINNING - 1200) < 60


def test_the_ledger_of_a_history_can_be_a_file() -> None:
    """The ledger that others are played with is kept in memory; here it is the file itself, and says the same."""
    plan = Plan(seed=7, faults=(("create", 4, "lost-twice"),), then="terminate")
    town = Town(plan.seed, {("create", 4): "lost-twice"}, ledger=Ledger(home() / "ledger.jsonl"))

    assert play(plan, town).violations == []
    assert len(town.made) == 2
    assert "rent.ended" in [entry.verb for entry in Ledger().entries()]


# What a campaign finds nothing in could also be blind: each of these takes one safety away and has to be noticed.


def test_the_campaign_sees_what_is_not_ours_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_of", lambda launch, rentals: tuple(
        rental for rental in rentals if rental.name.startswith(launch.name)
    ))  # fmt: skip

    assert "is not ours" in violated(CALM)


def test_the_campaign_sees_a_second_pod_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ending._terminate
    monkeypatch.setattr(
        ending,
        "_terminate",
        lambda provider, launch, pod: real(provider, launch, pod) if pod == launch.rental_id else "",
    )

    assert violated(replace(CALM, faults=(("create", 4, "twice"),), then="nothing"))


def test_the_campaign_sees_a_row_that_is_closed_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "SENT_S", -119.0)
    monkeypatch.setattr("podlab.lab.launches.GAP_S", 1.0)
    plan = replace(CALM, faults=(("create", 4, "lost-done"),), lags_s=(119.0, 110.0, 0.0))

    assert "was closed" in violated(plan)


@pytest.mark.parametrize("safe", [True, False])
def test_an_order_that_is_sent_minutes_late_finds_its_row_open(safe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not safe:
        monkeypatch.setattr(Asking, "is_held", lambda asking, launch_id: False)
    before_the_order = play(CALM).processes["create"].points.index("before create") + 1
    plan = Plan(blows=(("create", before_the_order, Blow("sleep", 290.0)),), lags_s=(119.0, 110.0, 0.0))

    assert ("its row is ended" in violated(plan)) is not safe


@pytest.mark.parametrize("safe", [True, False])
def test_an_order_of_a_process_that_slept_and_was_killed_finds_its_row_open(
    safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not safe:
        monkeypatch.setattr(ending, "_with_answer", lambda market, launch: replace(launch, unclear=launch.asked))
    at = play(CALM).processes["create"].points.index("before create") + 1
    plan = Plan(
        blows=(("create", at, Blow("sleep", 290.0)), ("create", at + 1, Blow("kill"))), lags_s=(119.0, 110.0, 0)
    )

    assert ("its row is ended" in violated(plan)) is not safe


def test_the_campaign_sees_a_clock_that_makes_two_looks_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Town, "stamp", lambda town: {})
    plan = replace(CALM, faults=(("create", 4, "lost-done"),), lags_s=(119.0, 110.0, 0.0), then="nothing")

    assert any("was closed" in violated(replace(plan, jumps=((after_s, 7200.0),))) for after_s in (20.0, 40.0, 60.0))


def test_the_campaign_sees_an_absence_that_another_account_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_check_account", lambda market, launch, provider: None)

    assert "was closed" in violated(replace(CALM, elsewhere=(200.0, 400.0), then="nothing"))


def test_the_campaign_sees_a_pod_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "end", lambda market, launch, *, why, brake: None)

    assert violated(replace(CALM, draws=((1, "never-armed"),), then="nothing"))
