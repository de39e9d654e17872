"""`sandbox`: the pretended company is opened, looked at, disturbed and closed."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import FaultList, FaultRow, SandboxDetail
from podlab.commands.results import Done, Outcome, Plan
from podlab.errors import BadArgument
from podlab.events import Notice, Stage, Work
from podlab.units import parse_usd

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace
    from podlab.sandbox.control import SandboxStatus


def up(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.sandbox import control

    if args.dry_run:
        return Outcome(Plan((f"open the sandbox, its bill {args.speed:g} times as fast as time",)))
    yield Stage("sandbox", "Opening the sandbox")
    opened = control.up(speed=args.speed, balance_usd=args.balance)
    if opened.was_open and opened.speed != args.speed:
        yield Notice(f"It was open already, at speed {opened.speed:g}. For another one: podlab sandbox down, then up")
    return Outcome(_detail(control.status()))


def down(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.commands.handlers import rentals
    from podlab.sandbox import control

    if args.dry_run:
        return Outcome(Plan(("close the sandbox, with its pods and all that runs on them",)))
    yield Stage("sandbox", "Closing the sandbox")
    closed = control.down()
    if closed and any(rental.provider == "sandbox" for rental in rentals.all_of(workspace, ended=False)):
        yield Notice("Its pods are gone with it. Their rows in the ledger close once that is proven, in some minutes.")
    return Outcome(Done("The sandbox is closed." if closed else "The sandbox was not open."))


def status(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.sandbox import control

    yield from ()
    return Outcome(_detail(control.status()))


def fault(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.sandbox import control
    from podlab.sandbox.fault_names import Ask

    yield from ()
    if args.clear:
        if args.name:
            raise BadArgument("--clear clears every fault.", hint="Leave the name away.")
        return Outcome(Plan(("clear every fault",)) if args.dry_run else _detail(control.clear_faults()))
    if not args.name:
        return Outcome(FaultList(tuple(FaultRow(each.name, each.help) for each in control.fault_names())))
    if args.dry_run:
        return Outcome(Plan((f"have {args.name} happen",)))
    ask = Ask(
        times=args.times or None, after=args.after, seconds=args.seconds, pod=args.pod, count=args.count
    )  # fmt: skip
    return Outcome(_detail(control.fault(args.name, ask)))


def money(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.sandbox import control

    yield from ()
    usd = parse_usd(args.dollars)
    if args.dry_run:
        return Outcome(Plan((f"put {usd:g} pretended dollars on the account",)))
    return Outcome(_detail(control.add_money(usd)))


def _times(left: int) -> str:
    return "once more" if left == 1 else f"{left} times more"


def _detail(said: SandboxStatus | None) -> SandboxDetail:
    if said is None:
        return SandboxDetail(False)
    faults = tuple(
        each.name + (" until it is cleared" if each.times is None else f", {_times(each.times - each.struck)}")
        for each in said.faults
        if each.times is None or each.struck < each.times
    )
    return SandboxDetail(
        True, said.url, said.pid, said.speed, said.pods, said.running, said.balance_usd, said.spend_usd_per_hour, faults
    )
