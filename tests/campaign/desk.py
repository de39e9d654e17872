"""How a process of a history reaches the company and its pods, with everything that can go wrong on the way.

`Desk` is a provider as the contract has it (podlab/providers/base.py), `Way` and `Crew` are what a create needs beside
it, `Watched` is the ledger as one process has it. Each call is a step: a fault may strike it, and before and after it
something may happen to the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from podlab.errors import (
    KeyRefused,
    NotFound,
    OutcomeUnknown,
    OutOfFunds,
    OutOfStock,
    PodlabError,
    ProviderUnavailable,
    RateLimited,
    StateDamaged,
    Unreachable,
    WrongState,
)
from podlab.events import Work
from podlab.lab import readiness
from podlab.lab.candidates import Candidate
from podlab.lab.launches import Launch, Moment, all_launches
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.ledger import Entry, Ledger
from podlab.renting import Account, Armed, Bill, Offer, OfferQuery, Order, Rental, RentalLine, RentalState
from podlab.sandbox.meter import buckets
from podlab.sandbox.records import PodRecord, Problem, Status, Wanted
from podlab.types import Pod
from tests.campaign.clockwork import Killed, Process

if TYPE_CHECKING:
    from tests.campaign.town import Town

NAME = "sandbox"
LEFT = "SECONDS_LEFT"
"""What the start command says of the deadline: it counts from each start, until a word from here says it exactly."""
PRINT = "SHA256:" + "A" * 43
STATES = {
    Status.PROVISIONING: RentalState.PROVISIONING, Status.STARTING: RentalState.STARTING,
    Status.RUNNING: RentalState.RUNNING, Status.EXITED: RentalState.STOPPED, Status.ERROR: RentalState.ERROR,
    Status.TERMINATED: RentalState.TERMINATED,
}  # fmt: skip
READ_FAULTS = ("down", "busy", "denied")
FAULTS: Mapping[str, tuple[str, ...]] = {
    "offers": READ_FAULTS,
    "list": (*READ_FAULTS, "cut"),
    "get": (*READ_FAULTS, "odd"),
    "logs": READ_FAULTS,
    "bills": READ_FAULTS,
    "create": (
        "stock", "funds", "busy", "denied", "down", "lost", "lost-done", "lost-twice", "lost-late", "twice",
        "other-gpu", "zero-gpu", "dear",
    ),
    "terminate": ("down", "busy", "lost", "lost-done", "locked", "ignored"),
    "stop": ("down", "busy", "lost", "lost-done", "locked"),
    "start": ("down", "busy", "lost", "lost-done", "stock", "denied"),
    "knock": ("lost",),
    "beat": ("lost",),
    "cuda": ("lost",),
    "append": ("full",),
}  # fmt: skip
"""What can go wrong with each step."""
DRAWS = ("no-runtime", "no-sshd", "no-cuda", "not-armed", "never-armed", "vanishes", "exits", "breaks")
"""What can be wrong with a machine."""


class Watched(Ledger):
    """The ledger as a process has it: a line is a step, before which and after which something may happen."""

    def __init__(self, town: Town, process: Process) -> None:
        assert town.ledger is not None
        self._town, self._process, self._below = town, process, town.ledger

    def append(self, verb: str, subject: str, **detail: str) -> Entry:
        return self.append_checked(verb, subject, lambda entries: detail)

    def append_checked(
        self, verb: str, subject: str, decide: Callable[[list[Entry]], Mapping[str, str]]
    ) -> Entry:  # fmt: skip
        if self._town.step(self._process, "append") == "full":
            raise StateDamaged("No space left on the disk.")
        entry = self._below.append_checked(verb, subject, decide)
        self._town.clock.rouse()
        if verb in ("rent.ended", "rent.refused"):
            self._town.closed(entry)
        self._town.clock.point(self._process, f"after {verb}")
        return entry

    def entries(self) -> list[Entry]:
        if self._process.dead:
            raise Killed
        return self._below.entries()


class Asking:
    """Which orders are being asked for: a killed process asks for nothing any more, one that sleeps still does."""

    def __init__(self, town: Town, process: Process) -> None:
        self._town, self._process = town, process

    @contextlib.contextmanager
    def held(self, launch_id: str) -> Iterator[None]:
        self._town.askers[launch_id] = self._process
        try:
            yield
        finally:
            del self._town.askers[launch_id]

    def is_held(self, launch_id: str) -> bool:
        asker = self._town.askers.get(launch_id)
        return asker is not None and not asker.dead


class Desk:
    """The provider, with everything that can go wrong on the way to it and back."""

    name, rents, simulated, lag_s = NAME, True, True, 120.0

    def __init__(self, town: Town, process: Process, *, elsewhere: bool = False) -> None:
        """`elsewhere`: with the key of another account, in which nothing of ours is."""
        self._town, self._process, self._is_elsewhere = town, process, elsewhere

    @property
    def identity(self) -> str:
        return "another account's" if self._is_elsewhere else "ours"

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        raise NotImplementedError

    def account(self) -> Account:
        return Account(NAME)

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        self._read("bills")
        self._town.company.advance()
        spans = buckets("hour", since, until)
        return () if self._is_elsewhere else tuple(
            Bill(each.id, each.begins_at, each.ends_at, each.usd) for each in self._town.company.meter.amounts(spans)
        )  # fmt: skip

    def offers(self, query: OfferQuery) -> tuple[Offer, ...]:
        self._read("offers")
        company = self._town.company
        return tuple(
            Offer(NAME, kind.id, kind.name, query.gpu_count, "secure", kind.secure_usd * query.gpu_count,
                  kind.memory_gb * 2**30, "high", tuple(place for place, _ in kind.free), kind.cuda, 8, True)
            for kind in company.stock.kinds.values()
        )  # fmt: skip

    def list(self) -> tuple[Rental, ...]:
        fault = self._read("list")
        if self._is_elsewhere:
            return ()
        rentals = tuple(self._rental(pod) for pod in self._town.company.listed(cluster_pods=True))
        ours = {made.id for made in self._town.made}
        return tuple(each for each in rentals if fault != "cut" or each.id not in ours)

    def get(self, rental_id: str) -> Rental | None:
        fault = self._read("get")
        if self._is_elsewhere:
            return None
        try:
            found = self._rental(self._town.company.get(rental_id))
        except Problem:
            return None
        return Rental(found.id, found.name, RentalState.UNKNOWN, said="DREAMING") if fault == "odd" else found

    def logs(
        self, rental_id: str, *, source: str | None = None, tail: int = 100, after: str | None = None,
        since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        self._read("logs")
        if self._is_elsewhere:
            raise NotFound("no such pod")
        book = self._town.company.books.get(rental_id)
        if book is None:
            raise NotFound("no such pod")
        lines = book.read(source=None, after=None if since is None else int(since * 1e9) - 1, tail=tail)
        return iter([
            RentalLine(line.id, line.at / 1e9, line.source, line.text)
            for line in lines if after is None or line.id > after
        ])  # fmt: skip

    def create(self, order: Order) -> Rental:
        fault = self._sent("create")
        certain: dict[str, PodlabError] = {
            "stock": OutOfStock("none left"), "funds": OutOfFunds("no money"), "busy": RateLimited("slow down"),
            "denied": KeyRefused("no such key"), "down": ProviderUnavailable("not reached"),
        }  # fmt: skip
        if fault in certain:
            raise certain[fault]
        if self._is_elsewhere:  # that account is its owner's business
            raise OutOfFunds("no money")
        if fault == "lost":
            raise OutcomeUnknown("the answer was lost")
        if fault == "lost-late":
            late_s = self._town.random.uniform(1.0, 25.0)
            self._town.clock.at(self._town.clock.now + late_s, lambda: self._made(order))
            raise OutcomeUnknown("no answer in time")
        made = self._made(order)
        if fault in ("twice", "lost-twice"):
            self._made(order)
        self._answered("create")
        if fault.startswith("lost"):
            raise OutcomeUnknown("the answer was lost")
        rental = self._rental(made)
        other = {
            "other-gpu": {"gpu_id": "NVIDIA L4"}, "zero-gpu": {"gpu_count": 0}, "dear": {"usd_per_hour": 9.0},
        }.get(fault, {})  # fmt: skip
        return Rental(**{**rental.__dict__, **other})

    def terminate(self, rental_id: str) -> None:
        self._town.touched.append(("terminate", rental_id))
        fault = self._sent("terminate")
        if fault == "down":
            raise ProviderUnavailable("not reached")
        if fault == "busy":
            raise RateLimited("slow down", retry_after_s=20.0)
        if fault == "locked":
            raise WrongState("it is locked")
        if fault == "lost":
            raise OutcomeUnknown("the answer was lost")
        if fault != "ignored" and not self._is_elsewhere:
            try:
                self._town.company.terminate(rental_id)
            except Problem as problem:
                if problem.status != 404:
                    raise WrongState(problem.detail) from problem
        self._answered("terminate")
        if fault == "lost-done":
            raise OutcomeUnknown("the answer was lost")

    def start(self, rental_id: str) -> None:
        self._change("start", rental_id)

    def stop(self, rental_id: str) -> None:
        self._change("stop", rental_id)

    def _change(self, action: str, rental_id: str) -> None:
        town = self._town
        town.touched.append((action, rental_id))
        fault = self._sent(action)
        refusals: dict[str, PodlabError] = {
            "down": ProviderUnavailable("not reached"), "busy": RateLimited("slow down", retry_after_s=20.0),
            "locked": WrongState("it is locked"), "lost": OutcomeUnknown("the answer was lost"),
            "stock": OutOfStock("no free GPU on its machine"), "denied": KeyRefused("no such key"),
        }  # fmt: skip
        if fault in refusals:
            raise refusals[fault]
        if self._is_elsewhere:
            raise NotFound("no such pod")
        try:
            made = town.company.act(rental_id, action)
        except Problem as problem:
            raise WrongState(problem.detail) from problem
        if action == "start":
            town.boots(made)
        else:
            town.halted.add(rental_id)
        self._answered(action)
        if fault == "lost-done":
            raise OutcomeUnknown("the answer was lost")

    def _made(self, order: Order) -> PodRecord:
        town = self._town
        try:
            made = town.company.create(Wanted(
                order.name, order.image, order.gpu_id, order.gpu_count, data_centers=order.data_centers,
                disk_gb=order.disk_gb, env=dict(order.env), ports=order.ports, min_cuda=order.min_cuda,
            ))  # fmt: skip
        except Problem as problem:
            raise OutOfStock(problem.detail) from problem
        row = next(each for each in all_launches(town.ledger) if each.order_name == order.name)
        town.rented(made, row.policy)
        return made

    def _read(self, what: str) -> str:
        fault = self._sent(what)
        if fault == "down":
            raise ProviderUnavailable("no answer")
        if fault == "busy":
            raise RateLimited("slow down", retry_after_s=20.0)
        if fault == "denied":
            raise KeyRefused("no such key")
        return fault

    def _sent(self, what: str) -> str:
        fault = self._town.step(self._process, what)
        self._town.clock.wait(self._process, self._town.random.uniform(0.05, 0.4))
        if self._town.clock.now < self._town.api_down_until:
            if what in ("create", "terminate", "start", "stop"):
                raise OutcomeUnknown("no answer in time")
            raise ProviderUnavailable("no answer in time")
        return fault

    def _answered(self, what: str) -> None:
        """On the way back: the deed is done, and nobody may learn of it."""
        self._town.clock.point(self._process, f"after {what}")
        self._town.clock.wait(self._process, self._town.random.uniform(0.05, 0.4))

    def _rental(self, pod: PodRecord) -> Rental:
        port = pod.public_ports.get("22/tcp")
        return Rental(
            pod.id, pod.name, STATES[pod.status], pod.status.value, pod.usd_per_hour, pod.wanted.gpu_id,
            pod.wanted.gpu_count, "secure", pod.data_center, pod.ip or None, port, created_at=pod.created_at,
            started_at=pod.started_at, has_runtime=pod.up_since is not None,
        )  # fmt: skip


class Way:
    """How a pod itself is reached, as far as a history goes."""

    def __init__(self, town: Town, process: Process) -> None:
        self._town, self._process = town, process

    def moved(self, launch: Launch, rental: Rental) -> None:
        self._town.registry[launch.name] = launch.id

    def knock(self, launch: Launch, fingerprints: tuple[str, ...]) -> Work[str]:
        self._reach("knock", launch)
        assert fingerprints == (PRINT,)
        yield from ()
        return "log"

    def beat(self, launch: Launch) -> Armed:
        moment = Moment.of(self._town.wall(), self._town.stamp())
        return self.word(launch, launch.asked.at + moment.since(launch.asked))

    def word(self, launch: Launch, now: float) -> Armed:
        """The word that keeps a pod alive, with the seconds that are left as whoever says it believes."""
        made = self._reach("beat", launch)
        return self._town.beaten(made, (launch.policy.deadline_at or now + 1e6) - now)

    def cuda(self, launch: Launch) -> str:
        made = self._reach("cuda", launch)
        return "no GPU is there" if self._draw(made) == "no-cuda" else ""

    def _reach(self, what: str, launch: Launch) -> PodRecord:
        fault = self._town.step(self._process, what)
        self._town.clock.wait(self._process, self._town.random.uniform(0.1, 0.8))
        made = self._town.company.pods.get(launch.rental_id or "")
        if fault or made is None or made.up_since is None or self._draw(made) == "no-sshd":
            raise Unreachable("it does not answer")
        return made

    def _draw(self, made: PodRecord) -> str:
        return self._town.draws.get(self._town.made.index(made) + 1, "")


class Crew:
    """What a create needs of a computer."""

    def __init__(self, town: Town, process: Process, market: Market) -> None:
        self._town, self._process, self._market = town, process, market

    def taken(self) -> Collection[str]:
        return self._town.registry

    def caps(self) -> Caps:
        return Caps(max_pods=4)

    def watched(self) -> str:
        return ""

    def start(self, launch: Launch, candidate: Candidate) -> tuple[tuple[str, ...], Mapping[str, str]]:
        deadline_at, moment = launch.policy.deadline_at, Moment.of(self._town.wall(), self._town.stamp())
        left_s = 1e6 if deadline_at is None else deadline_at - launch.asked.at - moment.since(launch.asked)
        return ("sleep", "infinity"), {"PUBLIC_KEY": "ssh-ed25519 AAAA", LEFT: repr(left_s)}

    def keep(self, launch: Launch, rental: Rental) -> None:
        self._town.registry[launch.name] = launch.id

    def drop(self, launch: Launch) -> None:
        self._town.registry.pop(launch.name, None)

    def arrive(self, launch: Launch, rental: Rental, check: Callable[[Rental], None]) -> Work[None]:
        yield from readiness.arrive(self._market, launch, rental, check, Way(self._town, self._process))
