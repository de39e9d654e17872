"""A rental company in memory, on a clock of the test's own: pods, bills, switches on the pods, and scripted faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from podlab.errors import NotFound, Unreachable
from podlab.lab.launches import Launch, new_id, policy_fields
from podlab.lab.market import Market
from podlab.ledger import Ledger
from podlab.renting import Armed, Bill, Policy, Rental, RentalState


@dataclass
class Machine:
    """A pod there. `ends_at`: when its switch has to end it; None: it says that it has none that works."""

    id: str
    name: str
    begun_at: float
    state: RentalState = RentalState.RUNNING
    usd_per_hour: float = 0.9
    ends_at: float | None = None
    acts: bool = False
    """Whether its switch does what it says: one that only says so shows whether the other brakes do."""
    idle_for_s: float = 0.0
    busy: tuple[str, ...] = ()
    billed_until: float | None = None
    silent: bool = False
    says_times: bool = True


class Company:
    """Keeps the provider's contract as far as tending needs it. `fault` is called before each call with its name."""

    name = "memory"
    rents = True
    simulated = True
    lag_s = 120.0
    identity = ""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ids = itertools.count(1)
        self.machines: dict[str, Machine] = {}
        self.calls: list[str] = []
        self.fault: Callable[[str], None] = lambda call: None
        self.bill_factor = 1.0

    def rent(self, name: str, *, lease_s: float | None = None, acts: bool = False) -> Machine:
        found = Machine(f"r{next(self._ids)}", name, self._now(), ends_at=lease_s and self._now() + lease_s, acts=acts)
        self.machines[found.id] = found
        return found

    def alive(self) -> list[Machine]:
        self.run()
        return [each for each in self.machines.values() if each.billed_until is None]

    def run(self) -> None:
        """Let the switches act that had to by now."""
        for each in self.machines.values():
            if each.billed_until is None and each.acts and each.ends_at and self._now() >= each.ends_at:
                if each.state is not RentalState.STOPPED:
                    each.billed_until = each.ends_at

    def list(self) -> tuple[Rental, ...]:
        self._called("list")
        return tuple(self._rental(each) for each in self.alive())

    def get(self, rental_id: str) -> Rental | None:
        self._called("get")
        found = [each for each in self.alive() if each.id == rental_id]
        return self._rental(found[0]) if found else None

    def terminate(self, rental_id: str) -> None:
        self._called("terminate")
        if rental_id not in self.machines:
            raise NotFound(f"no {rental_id}")
        if self.machines[rental_id].billed_until is None:
            self.machines[rental_id].billed_until = self._now()

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        self._called("bills")
        found = []
        for each in self.machines.values():
            ends_at = min(until, self._now(), each.billed_until or until)
            usd = max(0.0, ends_at - each.begun_at) / 3600 * each.usd_per_hour * self.bill_factor
            found.append(Bill(each.id, since, until, usd))
        return tuple(found)

    def beat(self, launch: Launch, rental: Rental, now: float) -> Armed:
        """What the heartbeat does over SSH."""
        machine = self.machines[rental.id]
        self._called("beat")
        if machine.silent or machine not in self.alive():
            raise Unreachable("it does not answer")
        if machine.ends_at is None:
            return Armed(False, "it has no key")
        machine.ends_at = self._now() + launch.policy.lease_s
        policy = launch.policy
        return Armed(
            True, lease_left_s=policy.lease_s, idle_for_s=machine.idle_for_s, busy=machine.busy, idle_s=policy.idle_s,
            deadline_left_s=None if policy.deadline_at is None else policy.deadline_at - now, lease_s=policy.lease_s,
            budget_usd=policy.budget_usd, policy_serial=launch.policy_serial,
        )  # fmt: skip

    def _called(self, call: str) -> None:
        self.calls.append(call)
        self.fault(call)

    def _rental(self, each: Machine) -> Rental:
        up_s = self._now() - each.begun_at
        return Rental(
            each.id, each.name, each.state, each.state.value.upper(), each.usd_per_hour, ssh_host="127.0.0.1",
            ssh_port=22, created_at=each.begun_at if each.says_times else None,
            started_at=each.begun_at if each.says_times else None, uptime_s=up_s if each.says_times else None,
            has_runtime=True,
        )  # fmt: skip


@dataclass
class Clock:
    """True time, and how far the computer's own clock is off. `boots` counts its starts."""

    true: float = 1_700_000_000.0
    off_s: float = 0.0
    boots: int = 0
    booted_at: float = field(default=1_699_999_000.0)

    def now(self) -> float:
        return self.true + self.off_s

    def steady(self) -> float:
        return self.true - self.booted_at

    def pause(self, seconds: float) -> None:
        self.true += seconds


def market_of(company: Company, clock: Clock, ledger: Ledger) -> Market:
    return Market(ledger, lambda name: company, clock.now, clock.pause)  # type: ignore[arg-type,return-value]


def launched(
    company: Company, ledger: Ledger, *, policy: Policy | None = None, armed: bool = True, acts: bool = False,
    live: bool = True,
) -> tuple[str, Machine]:  # fmt: skip
    """A pod that was asked for and, unless told otherwise, came to live; its launch's id and the machine.

    Its switch says that it is armed, if `armed`, and ends the pod only if it `acts`: else whoever tends has to.
    """
    policy, id = policy or Policy(), new_id()
    ledger.append(
        "rent.ask", id, name=f"pod-{id}", order=f"order-{id}", provider="memory", usd_per_hour="1.0",
        disk_usd_per_hour="0.1", stopped_usd_per_hour="0.2", simulated="yes", **policy_fields(policy),
    )  # fmt: skip
    machine = company.rent(f"order-{id}", lease_s=policy.lease_s if armed else None, acts=acts)
    if live:
        ledger.append("rent.live", id, rental=machine.id, usd_per_hour="1.0")
    return id, machine
