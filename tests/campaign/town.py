"""A whole rental history on counted time: the sandbox's company, podlab's own code on it, and what can go wrong.

The company is the sandbox's own logic; between it and podlab stands `desk.Desk`, which can fail in every way that the
contract of a provider knows. On each pod runs a model of the dead-man switch. What is checked is what the company
knows in the end, never what podlab believes.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from podlab.events import Ask, Work
from podlab.lab import ending, renting, tending, tenure
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.rent_wish import RentWish
from podlab.lab.tending_file import Notes, Owner, TendingFile
from podlab.ledger import Entry, Ledger
from podlab.renting import (
    Armed,
    Policy,
)
from podlab.sandbox.company import Company
from podlab.sandbox.records import Pace, PodRecord, Problem, Status, Wanted
from tests.campaign.clockwork import BEGINNING, Clockwork, Killed, Process
from tests.campaign.desk import FAULTS, LEFT, NAME, PRINT, Asking, Crew, Desk, Watched, Way

T = TypeVar("T")
GRACE_S = 180.0
"""From when a pod has to end to when it is no longer billed."""
BOOT_GRACE_S = 900.0
UNARMED_S = 1200.0
"""By when a pod without an armed switch is ended from outside: podlab waits a quarter of an hour for it."""
LOOK_S = 5.0
"""How soon who tends sees that the ledger has grown."""
TOGETHER_S = 180.0
"""How long two pods of one order may be billed at the same time."""
WISH = RentWish(provider=NAME, gpus=("A40", "RTX A6000"), ttl_s=1200.0, budget_usd=5.0, idle_s=None)


class Lines(Ledger):
    """A ledger that is kept in memory: as the file's, without the disk's time."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(Path("/nowhere"), now=now)
        self._entries: list[Entry] = []

    def append_checked(
        self, verb: str, subject: str, decide: Callable[[list[Entry]], Mapping[str, str]]
    ) -> Entry:  # fmt: skip
        entry = Entry(len(self._entries) + 1, self._now(), verb, subject, dict(decide(list(self._entries))))
        self._entries.append(entry)
        return entry

    def entries(self) -> list[Entry]:
        return list(self._entries)


class Notebook(TendingFile):
    """What those who tend share, kept in memory."""

    def notes(self) -> Notes:
        return self.__dict__.get("kept", Notes())

    def _write(self, notes: Notes) -> None:
        self.__dict__["kept"] = notes

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        yield


@dataclass
class Switch:
    """The dead-man switch of a pod, as far as money goes. `broken`: it never was armed, and ends nothing."""

    pod: str
    lease_at: float
    deadline_at: float
    lease_s: float
    broken: bool = False


@dataclass
class Town:
    """One history. `faults` are by process and the number of its step; `draws` by the number of the pod."""

    seed: int = 0
    faults: dict[tuple[str, int], str] = field(default_factory=dict)
    draws: dict[int, str] = field(default_factory=dict)
    pace: Pace = field(default_factory=lambda: Pace(provision_s=6.0, start_s=5.0, runtime_s=4.0))
    ledger: Ledger | None = None
    api_down_until: float = 0.0
    """Nobody reaches the provider before that, the pods' switches included."""

    def __post_init__(self) -> None:
        self.clock = Clockwork(self.seed)
        self.random = random.Random(self.seed + 1)
        self.company = Company(
            now=self.clock.time, rng=random.Random(self.seed), pace=self.pace, balance_usd=1000.0,
            token=lambda: f"{self.random.getrandbits(128):032x}", listen=self._happens,
        )  # fmt: skip
        self.skew_s = 0.0
        """How far this computer's clock is from the right time."""
        if self.ledger is None:
            self.ledger = Lines(self.wall)
        else:
            self.ledger._now = self.wall
        self.steps: dict[str, list[str]] = {}
        self.touched: list[tuple[str, str]] = []
        """What processes asked of which pod."""
        self.made: list[PodRecord] = []
        """Pods that came of our orders, in order."""
        self.switches: dict[str, Switch] = {}
        self.registry: dict[str, str] = {}
        self.askers: dict[str, Process] = {}
        """Who is asking for which launch."""
        self.booted: dict[str, float] = {}
        """When the container of a pod was last asked to run."""
        self.halted: set[str] = set()
        """Pods whose container was ended by others: no switch runs on them."""
        self.violations: list[str] = []
        self.alive: list[tuple[float, float]] = []
        """When somebody tended."""
        self.policies: dict[str, Policy] = {}
        self.deadlines: dict[str, float] = {}
        """By the right time: from the seconds that were left at its order."""
        self.elsewhere = (0.0, 0.0)
        """From when to when the key of this computer is another account's."""
        self.untended_until = 0.0
        """Nobody here ends anything before that: this computer is down."""
        self.notes = Notebook(Path("/nowhere"), self.wall, lambda: self.clock.now - BEGINNING, "boot")
        self.foreign = [
            self.company.create(Wanted(name, "other/image", "NVIDIA RTX A4000"))
            for name in ("somebody-elses", "podlab-2027-01-15-001-0badcafe")
        ]  # fmt: skip

    def wall(self) -> float:
        """The time as this computer's clock has it."""
        return self.clock.now + self.skew_s

    def stamp(self) -> dict[str, str]:
        """What the clock says that nobody can set."""
        return {"steady": repr(self.clock.now - BEGINNING), "boot": "boot"}

    # Steps of processes

    def step(self, process: Process, what: str) -> str:
        """A step of a process: what goes wrong with it, "" for nothing. Something may happen to the process here."""
        self.clock.point(process, f"before {what}")
        steps = self.steps.setdefault(process.name, [])
        steps.append(what)
        fault = self.faults.get((process.name, len(steps)), "")
        return fault if fault in FAULTS.get(what, ()) else ""

    def market(self, process: Process) -> Market:

        def provider(name: str) -> Desk:
            if process.dead:
                raise Killed
            begins, ends = self.elsewhere
            return Desk(self, process, elsewhere=begins <= self.clock.now < ends)

        return Market(
            Watched(self, process), provider, self.wall, lambda seconds: self.clock.wait(process, seconds),
            self.stamp, Asking(self, process),
        )  # fmt: skip

    # Processes

    def create(self, process: Process, wish: RentWish = WISH) -> Launch:
        """`pod create`, to its end."""
        market = self.market(process)
        crew = Crew(self, process, market)
        return self.carried_out(process, renting.create(market, wish, crew))

    def carried_out(self, process: Process, work: Work[T]) -> T:
        """Drive a verb: every price is agreed to, an interrupt between two of its steps is thrown into it."""
        answer: bool | None = None
        problem: BaseException | None = None
        try:
            while True:
                event = work.send(answer) if problem is None else work.throw(problem)
                problem, answer = None, True if isinstance(event, Ask) else None
                try:
                    self.clock.point(process, "event")
                except KeyboardInterrupt as error:
                    problem = error
        except StopIteration as end:
            return end.value
        finally:
            work.close()

    def tend(self, process: Process, who: Literal["keeper", "kernel"] = "keeper") -> None:
        """What the keeper and a kernel do all the time."""
        market, way = self.market(process), Way(self, process)
        here = tending.World(
            self.notes, Owner(who, process.name, 1, "here"), lambda launch, rental, now: way.word(launch, now), Caps,
            way.moved, beat_deadline_s=None,
        )  # fmt: skip
        while True:
            begun_at = self.clock.now
            tended = tending.tend(market, here)
            self.alive.append((begun_at, self.clock.now + tended.again_s))
            self.clock.nap(process, tended.again_s, LOOK_S)  # until the ledger grows

    def terminate(self, process: Process) -> None:
        """`pod terminate` of all there is, to the proof."""
        market = self.market(process)
        for launch in all_launches(market.ledger):
            if launch.is_open:
                ending.end(market, launch, why="a person asked", brake="person")
                self.carried_out(process, ending.until_proven(market, launch))

    def rest(self, process: Process) -> None:
        """`pod stop` of what runs, and `pod start` of it after a while."""
        market = self.market(process)
        crew = Crew(self, process, market)
        for launch in all_launches(market.ledger):
            if launch.phase is Phase.LIVE:
                self.carried_out(process, tenure.stop(market, launch))
                self.clock.wait(process, self.random.uniform(5.0, 400.0))
                now = next(each for each in all_launches(market.ledger) if each.id == launch.id)
                self.carried_out(process, tenure.start(market, now, crew))

    # Pods

    def rented(self, made: PodRecord, policy: Policy) -> None:
        """A pod came of an order."""
        self.made.append(made)
        self.check_rows()
        self.policies[made.id] = policy
        self.deadlines[made.id] = self.clock.now + float(made.env[LEFT])
        draw = self.draws.get(len(self.made), "")
        self.boots(made, draw)
        fate = {"vanishes": self.company.vanish, "exits": self.company.exit,
                "breaks": lambda pod: self.company.fail(pod, "broken")}.get(draw)  # fmt: skip
        if fate is not None:
            self.clock.at(self.clock.now + self.random.uniform(1.0, 40.0), lambda: self._befall(made, fate))

    def boots(self, made: PodRecord, draw: str = "") -> None:
        """A pod's container is on its way."""
        self.booted[made.id] = self.clock.now
        self.halted.discard(made.id)
        self.switches.pop(made.id, None)
        up_s = self.pace.provision_s + self.pace.start_s
        self.clock.at(self.clock.now + up_s, self.company.advance)
        self.clock.at(self.clock.now + up_s + self.pace.runtime_s, lambda: self._up(made, draw))

    def _befall(self, made: PodRecord, fate: Callable[[str], None]) -> None:
        if made.status is not Status.TERMINATED:
            self.halted.add(made.id)
            fate(made.id)

    def _happens(self, pod: PodRecord, happening: str) -> None:
        pass  # `_up` brings it up

    def _up(self, made: PodRecord, draw: str) -> None:
        self.company.advance()
        if made.status is not Status.RUNNING or draw == "no-runtime":
            return
        self.company.came_up(made.id, ip="203.0.113.7", public_ports={"22/tcp": self.random.randrange(20000, 60000)})
        self.company.advance()
        policy = self.policies[made.id]
        switch = Switch(
            made.id, self.clock.now + BOOT_GRACE_S, self.clock.now + float(made.env[LEFT]), policy.lease_s,
            broken=draw in ("not-armed", "never-armed"),
        )  # fmt: skip
        self.switches[made.id] = switch
        book = self.company.books[made.id]
        book.write(self.clock.now, "container", f"podlab: host key ssh-ed25519 {PRINT}")
        if draw != "never-armed":
            said = "podlab: not armed: no key" if switch.broken else "podlab: armed {}"
            book.write(self.clock.now, "container", said)
        if not switch.broken:
            for due_at in (switch.lease_at, switch.deadline_at):
                self.clock.at(due_at, lambda: self._switch_looks(made, switch))

    def _switch_looks(self, made: PodRecord, switch: Switch) -> None:
        is_due = self.clock.now >= min(switch.lease_at, switch.deadline_at)
        if not made.live or not is_due or self.switches.get(made.id) is not switch:
            return
        if self.clock.now < self.api_down_until:
            self.clock.at(self.clock.now + 60.0, lambda: self._switch_looks(made, switch))
            return
        try:
            self.company.terminate(made.id)
        except Problem:  # too new to be found: asked again
            self.clock.at(self.clock.now + 10.0, lambda: self._switch_looks(made, switch))

    def beaten(self, made: PodRecord, left_s: float) -> Armed:
        switch = self.switches.get(made.id)
        if switch is None or switch.broken:
            return Armed(False, "it could not check its key")
        switch.lease_at = self.clock.now + switch.lease_s
        switch.deadline_at = self.clock.now + left_s
        for due_at in (switch.lease_at, switch.deadline_at):
            self.clock.at(due_at, lambda: self._switch_looks(made, switch))
        return Armed(True)

    # What must hold

    def check_rows(self) -> None:
        """Every pod of ours that lives has an open row, by its id or by the name that no other order has."""
        launches = {launch.order_name: launch for launch in all_launches(self.ledger)}
        for made in self.made:
            if made.status is Status.TERMINATED:
                continue
            row = launches.get(made.name)
            if row is None or not row.is_open:
                said = "no row names it" if row is None else f"its row is {row.phase}"
                self.violations.append(f"{made.id} ({made.name}) lives, and {said}")

    def is_open(self) -> bool:
        """Whether anything of ours is billed, or counts as such."""
        return any(made.status is not Status.TERMINATED for made in self.made) or any(
            row.is_open for row in all_launches(self.ledger)
        )

    def closed(self, entry: Entry) -> None:
        """A row was closed: nothing of it may live."""
        row = next((each for each in all_launches(self.ledger) if each.id == entry.subject), None)
        if row is None or row.is_open:
            return
        living = [made.id for made in self.made if made.name == row.order_name and made.status is not Status.TERMINATED]
        if living:
            self.violations.append(f"the row of {row.order_name} was closed ({entry.verb}) while {living} lived")

    def verdict(self, *, tended: bool) -> list[str]:
        """What was violated in the end. `tended`: somebody was there to the end, and the provider answered."""
        self.check_rows()
        found = list(self.violations)
        foreign = {pod.id for pod in self.foreign}
        found += [f"{id} is not ours, and was asked to {what}" for what, id in self.touched if id in foreign]
        found += [f"{pod.id} is not ours, and is gone" for pod in self.foreign if pod.status is Status.TERMINATED]
        for made in self.made:
            if tended or self.is_switched(made):
                found += self._billed_too_long(made, tended=tended)
        if tended:
            found += [
                f"the row of {row.order_name} is still {row.phase}" for row in all_launches(self.ledger)
                if row.is_open and not self._is_kept(row) and "ours" in row.keys
            ]  # fmt: skip
            if (together_s := self.together_s()) > TOGETHER_S:
                found.append(f"two pods of one order were billed together for {together_s:.0f} s")
        return found

    def is_switched(self, made: PodRecord) -> bool:
        """Whether a switch ran on the pod and was armed: without one, and without this computer, nobody ends it."""
        switch = self.switches.get(made.id)
        return switch is not None and not switch.broken and made.id not in self.halted

    def late_s(self, made: PodRecord, *, tended: bool) -> float:
        """How long a pod was billed behind the moment by which it had to end."""
        switch = self.switches.get(made.id)
        limits = [self.deadlines[made.id]]
        blind_until = self.api_down_until
        if switch is not None and self.is_switched(made):
            limits = [switch.deadline_at, switch.lease_at]
        elif tended:
            blind_until = max(blind_until, self.untended_until, self.elsewhere[1])
            if made.id not in self.halted:
                limits.append(self.booted[made.id] + UNARMED_S)
        end_at = made.terminated_at if made.terminated_at is not None else self.clock.now
        return end_at - max(min(limits), blind_until, self.booted[made.id])

    def _billed_too_long(self, made: PodRecord, *, tended: bool) -> list[str]:
        if self.is_kept(made):
            return []
        late_s = self.late_s(made, tended=tended)
        if made.status is not Status.TERMINATED:
            return [f"{made.id} ({made.name}) is still billed, {late_s:.0f} s late"]
        return [f"{made.id} was billed {late_s:.0f} s too long"] if late_s > GRACE_S else []

    def is_kept(self, made: PodRecord) -> bool:
        """Whether it was stopped, by a person or in the console: only its disk is billed, until somebody says."""
        return made.status is Status.EXITED and self._is_kept(self._row(made))

    def _row(self, made: PodRecord) -> Launch:
        return next(row for row in all_launches(self.ledger) if row.order_name == made.name)

    def _is_kept(self, row: Launch) -> bool:
        pods = [made for made in self.made if made.name == row.order_name and made.status is not Status.TERMINATED]
        return row.phase is Phase.LIVE and [made.status for made in pods] == [Status.EXITED]

    def together_s(self) -> float:
        """The longest that two pods of one create were billed at the same time, since both were listed and somebody
        was here: while this computer is down their leases end them."""
        longest = 0.0
        for first in self.made:
            for second in self.made:
                if first is not second and _label(first) == _label(second):
                    begins = max(first.created_at, second.created_at)
                    ends = min(first.terminated_at or self.clock.now, second.terminated_at or self.clock.now)
                    listed = max(begins, first.unlisted_until, second.unlisted_until)
                    longest = max(
                        longest, ends - max(listed, self.api_down_until, self.untended_until, self.elsewhere[1])
                    )
        return longest

    def usd(self) -> float:
        """What our pods have cost in all."""
        return sum(self.company.pod_usd(made.id) for made in self.made)


def _label(made: PodRecord) -> str:
    return made.name.rpartition("-")[0]
