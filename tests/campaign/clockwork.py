"""Time that is only counted, and processes that take turns in it: years of renting in seconds, the same each time.

A process is a greenlet. It runs until it waits (for time, or for an answer), and whoever is due next runs then. What
may happen to a process happens at its points: before and after each call of a provider, around each line of the
ledger, at each event of its verb. There it can be killed (nothing of it runs any more, no handler and no `finally`
has an effect), interrupted as by Ctrl-C, or stopped for a while as a laptop that sleeps.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from greenlet import greenlet

BEGINNING = 1_800_000_000.0


class Killed(BaseException):
    """The process is no more. Raised again by whatever its handlers try."""


@dataclass(frozen=True)
class Blow:
    """What happens to a process at one of its points."""

    kind: Literal["kill", "interrupt", "sleep"]
    seconds: float = 0.0


@dataclass
class Process:
    """A process of podlab. `blows` are by the number of the point."""

    name: str
    blows: dict[int, Blow] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)
    """What it came by, in order."""
    dead: bool = False
    done: bool = False
    error: BaseException | None = None
    result: object = None
    _greenlet: greenlet | None = None


@dataclass(eq=False)
class _Nap:
    process: Process
    since: float
    look_s: float


class Clockwork:
    """The time, and who is due."""

    def __init__(self, seed: int = 0) -> None:
        self.now = BEGINNING
        self.random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._hub = greenlet.getcurrent()
        self.current: Process | None = None
        self._naps: dict[str, _Nap] = {}

    def time(self) -> float:
        return self.now

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have `what` done then; it must not wait."""
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._count, what))

    def start(self, process: Process, body: Callable[[], object], *, after_s: float = 0.0) -> Process:
        """A process that does `body`, in a while."""

        def run() -> None:
            try:
                process.result = body()
            except BaseException as error:  # noqa: BLE001  # told by the process
                process.error = error
            process.done = True

        process._greenlet = greenlet(run)
        self.at(self.now + after_s, lambda: self._resume(process))
        return process

    def run(self, until: float) -> None:
        """Let everything happen up to a time."""
        while self._due and self._due[0][0] <= until:
            when, _, what = heapq.heappop(self._due)
            self.now = max(self.now, when)
            what()
        self.now = max(self.now, until)

    def wait(self, process: Process, seconds: float) -> None:
        """Called in a process: others run until then."""
        if process.dead:
            raise Killed
        self.at(self.now + max(0.0, seconds), lambda: self._resume(process))
        self._hub.switch()
        if process.dead:
            raise Killed

    def nap(self, process: Process, seconds: float, look_s: float) -> None:
        """Called in a process: as `wait`, but a `rouse` ends it, at the next time that it looks: every `look_s`."""
        if process.dead:
            raise Killed
        nap = self._naps[process.name] = _Nap(process, self.now, look_s)
        self.at(self.now + max(0.0, seconds), lambda: self._wake(nap))
        self._hub.switch()
        if process.dead:
            raise Killed

    def rouse(self) -> None:
        """Something happened that those who nap look for."""
        for nap in self._naps.values():
            looks = math.floor((self.now - nap.since) / nap.look_s) + 1
            self.at(nap.since + looks * nap.look_s, lambda nap=nap: self._wake(nap))

    def _wake(self, nap: _Nap) -> None:
        if self._naps.get(nap.process.name) is nap:
            del self._naps[nap.process.name]
            self._resume(nap.process)

    def point(self, process: Process, what: str) -> None:
        """Called in a process: something may happen to it here."""
        if process.dead:
            raise Killed
        process.points.append(what)
        blow = process.blows.get(len(process.points))
        if blow is None:
            return
        if blow.kind == "sleep":
            self.wait(process, blow.seconds)
        elif blow.kind == "interrupt":
            raise KeyboardInterrupt
        else:
            process.dead = True
            raise Killed

    def kill(self, process: Process) -> None:
        """End a process where it is."""
        process.dead = True
        if process._greenlet is not None and process._greenlet and not process.done:
            before, self.current = self.current, process
            process._greenlet.throw(Killed)
            self.current = before

    def _resume(self, process: Process) -> None:
        if process.done or process._greenlet is None:
            return
        before, self.current = self.current, process
        process._greenlet.parent = greenlet.getcurrent()
        process._greenlet.switch()
        self.current = before
