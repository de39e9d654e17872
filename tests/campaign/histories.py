"""Histories: what happens in one, played to its end, and what it came to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from podlab.errors import PodlabError
from podlab.sandbox.records import Pace
from tests.campaign.clockwork import Blow, Clockwork, Killed, Process
from tests.campaign.desk import DRAWS, FAULTS
from tests.campaign.town import Town

LONGEST_S = 4500.0
"""Behind the deadline of any pod, its lease, its grace and the proof of its end."""
QUIET_S = 300.0
"""So long after nothing is rented or asked for any more a history has ended: no list is later than that."""
TENDERS = ("keeper", "kernel", "reloaded")
STEPS = tuple(FAULTS)


@dataclass(frozen=True)
class Plan:
    """What happens. Numbers of steps and points count from 1, each process has its own."""

    seed: int = 1
    faults: tuple[tuple[str, int, str], ...] = ()
    """Process, step, what goes wrong."""
    blows: tuple[tuple[str, int, Blow], ...] = ()
    """Process, point, what happens to it."""
    draws: tuple[tuple[int, str], ...] = ()
    """The number of the pod, what is wrong with its machine."""
    lags_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Until a new pod is listed, until it is found by its id, until one that ended is listed no more."""
    dies_after_s: float | None = None
    """When this computer is gone for good."""
    down: tuple[float, float] | None = None
    """From when and for how long nobody reaches the provider."""
    elsewhere: tuple[float, float] | None = None
    """From when and for how long the key of this computer is another account's."""
    jumps: tuple[tuple[float, float], ...] = ()
    """When this computer's clock is set, and by how many seconds."""
    creates: int = 1
    """How many are under way at the same time, each in a process of its own."""
    then: Literal["nothing", "terminate", "rest"] = "nothing"
    """What a person does later: `pod terminate`, or `pod stop` and `pod start`."""
    reboot: tuple[float, float] | None = None
    """When this computer goes down with all that runs on it, and how long later podlab is loaded again."""


@dataclass
class Played:
    """What a history came to."""

    plan: Plan
    town: Town
    processes: dict[str, Process] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def play(plan: Plan, town: Town | None = None) -> Played:
    """A history, to its end."""
    listing_s, read_s, gone_s = plan.lags_s
    town = town or Town(
        plan.seed, {(who, number): fault for who, number, fault in plan.faults}, dict(plan.draws),
        Pace(6.0, 5.0, 4.0, listing_s, read_s, gone_s),
    )  # fmt: skip
    clock, found = town.clock, Played(plan, town)
    chance = random.Random(plan.seed)

    def process(name: str) -> Process:
        blows = {point: blow for who, point, blow in plan.blows if who == name}
        return found.processes.setdefault(name, Process(name, blows))

    for number in range(plan.creates):
        creator = process("create" if not number else f"create{number + 1}")
        clock.start(creator, lambda creator=creator: town.create(creator), after_s=chance.uniform(0, 20) * number)
    keeper = process("keeper")
    clock.start(keeper, lambda: town.tend(keeper), after_s=chance.uniform(1, 30))
    kernel = process("kernel")
    clock.start(kernel, lambda: town.tend(kernel, "kernel"), after_s=chance.uniform(40, 200))
    later = {"terminate": town.terminate, "rest": town.rest}.get(plan.then)
    if later is not None:
        person = process(plan.then)
        clock.start(person, lambda: later(person), after_s=chance.uniform(20, 500))
    _schedule(plan, found, process)
    _run(plan, found)
    tenders = [each for name, each in found.processes.items() if name in TENDERS]
    found.violations = town.verdict(tended=not all(each.dead for each in tenders))
    found.violations += [said for each in found.processes.values() for said in _ended(each)]
    return found


def _schedule(plan: Plan, found: Played, process: Callable[[str], Process]) -> None:
    """Have happen what a plan has a time for."""
    town, clock = found.town, found.town.clock
    if plan.down is not None:
        begins_s, lasts_s = plan.down
        clock.at(clock.now + begins_s, lambda: _cut(town, lasts_s))
    if plan.elsewhere is not None:
        begins_s, lasts_s = plan.elsewhere
        town.elsewhere = clock.now + begins_s, clock.now + begins_s + lasts_s
    for after_s, by_s in plan.jumps:
        clock.at(clock.now + after_s, lambda by_s=by_s: _set(town, by_s))
    if plan.dies_after_s is not None:
        clock.at(clock.now + plan.dies_after_s, lambda: _die(clock, found))
    if plan.reboot is not None:
        down_s, up_s = plan.reboot
        reloaded = process("reloaded")
        clock.at(clock.now + down_s, lambda: _die(clock, found, reloaded))
        clock.start(reloaded, lambda: town.tend(reloaded, "kernel"), after_s=down_s + up_s)
        town.untended_until = clock.now + down_s + up_s + 60.0


def _run(plan: Plan, found: Played) -> None:
    """Let time pass until nothing can happen any more."""
    town, begun_at = found.town, found.town.clock.now
    longest_s = (
        LONGEST_S
        + (sum(plan.reboot) if plan.reboot else 0.0)
        + sum(blow.seconds for _, _, blow in plan.blows)
        + (plan.down[1] if plan.down else 0.0)
        + (plan.elsewhere[1] if plan.elsewhere else 0.0)
    )
    over_s = 0.0
    for passed_s in range(0, int(longest_s), 60):
        town.clock.run(begun_at + passed_s)
        town.check_rows()
        busy = passed_s < _last_event_s(plan) or not all(map(_has_ended, found.processes.values()))
        over_s = 0.0 if busy or town.is_open() else over_s + 60.0
        if over_s > QUIET_S:
            break


def _last_event_s(plan: Plan) -> float:
    """When the last thing happens that a plan has a time for."""
    spans = (plan.down, plan.elsewhere, plan.reboot)
    ends = [sum(span) for span in spans if span is not None] + [after_s for after_s, _ in plan.jumps]
    return max([plan.dies_after_s or 0.0, *ends])


def _has_ended(process: Process) -> bool:
    return process.name in TENDERS or process.done or process.dead


def _cut(town: Town, lasts_s: float) -> None:
    town.api_down_until = town.clock.now + lasts_s


def _set(town: Town, by_s: float) -> None:
    town.skew_s += by_s


def _die(clock: Clockwork, found: Played, *but: Process) -> None:
    for process in found.processes.values():
        if process not in but:
            clock.kill(process)


def _ended(process: Process) -> list[str]:
    """What is wrong with how a process ended: errors of ours are its result, anything else is a bug."""
    if process.error is not None and not isinstance(process.error, (PodlabError, KeyboardInterrupt, Killed)):
        return [f"{process.name} ended with {process.error!r}"]
    if process.name.startswith("create") and not (process.done or process.dead):
        return [f"{process.name} never ended"]
    return []


def random_plan(seed: int) -> Plan:
    """Some of everything, by chance."""
    chance = random.Random(seed)
    creates = 2 if chance.random() < 0.15 else 1
    then: Literal["nothing", "terminate", "rest"] = chance.choice(("nothing", "terminate", "rest"))
    names = ["create", "keeper", "kernel", "create2", "terminate", "rest"]
    faults = tuple(
        (who, number, fault)
        for who in names
        for number in chance.sample(range(1, 60), chance.choice((0, 1, 2, 5)))
        for fault in [chance.choice(FAULTS[chance.choice(STEPS)])]
    )
    if chance.random() < 0.5:  # the order itself: the sixth step or so of a create
        faults += (("create", chance.choice((3, 4, 5)), chance.choice(FAULTS["create"])),)
    blows = tuple(
        (chance.choice(("create", "create", "rest", "terminate")), chance.randrange(1, 60), blow)
        for blow in chance.choices(
            (Blow("kill"), Blow("interrupt"), Blow("sleep", chance.uniform(5, 900))), k=chance.choice((0, 0, 1, 1, 2))
        )
    )
    if chance.random() < 0.2:
        blows += ((chance.choice(("keeper", "kernel")), chance.randrange(1, 300), Blow("kill")),)
    if chance.random() < 0.2:
        blows += (("keeper", chance.randrange(1, 300), Blow("sleep", chance.uniform(50, 900))),)
    return Plan(
        seed, faults, blows,
        tuple((number, chance.choice(DRAWS)) for number in range(1, 4) if chance.random() < 0.25),
        chance.choice(((0, 0, 0), (0, 0, 0), (20, 5, 30), (60, 60, 100), (119, 110, 100))),
        dies_after_s=chance.uniform(0, 700) if chance.random() < 0.15 else None,
        down=(chance.uniform(0, 900), chance.choice((20.0, 120.0, 600.0))) if chance.random() < 0.15 else None,
        jumps=tuple(
            (chance.uniform(0, 900), chance.choice((-7200.0, -90.0, 90.0, 7200.0)))
            for _ in range(chance.choice((0, 0, 0, 0, 0, 1, 2)))
        ),
        creates=creates, then=then,
        elsewhere=(chance.uniform(0, 900), chance.choice((100.0, 600.0))) if chance.random() < 0.1 else None,
        reboot=(chance.uniform(0, 900), chance.uniform(30, 2500)) if chance.random() < 0.15 else None,
    )  # fmt: skip
