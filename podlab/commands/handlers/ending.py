"""`pod stop` and `pod terminate`: the end of what a rented pod costs."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.handlers.rentals import detail_of
from podlab.commands.rent_results import RentalList
from podlab.commands.results import Outcome, Plan
from podlab.errors import BadArgument, BadSettings, Refused, StateDamaged
from podlab.events import Ask, Notice, Work

if TYPE_CHECKING:
    from podlab.lab.launches import Launch
    from podlab.lab.market import Market
    from podlab.lab.workspace import Workspace


def terminate(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.market import Market
    from podlab.lab.rented_names import called_here

    market = Market.of(workspace)
    meant = yield from _meant(workspace, market, args)
    if args.dry_run:
        return Outcome(Plan(tuple(f"end {launch.name} at {launch.provider}, and prove it" for launch in meant)))
    open_ones = [launch for launch in meant if launch.is_open]
    if open_ones:
        answer = yield _question(market, open_ones)
        if not answer:
            raise Refused("Nothing was ended, so the bill goes on.", hint="Repeat with --yes")
    ended = yield from _end(market, open_ones, wait=not args.no_wait)
    after = called_here(tuple({launch.id: launch for launch in (*meant, *ended)}.values()))
    left = [launch for launch in after if launch.is_open]
    for launch in left:
        yield Notice(_not_proven(launch), "warning")
    rows = tuple(detail_of(launch, market.now()) for launch in after)
    yield from _dropped(workspace, [launch.id for launch in after if not launch.is_open])
    return Outcome(RentalList(rows), 1 if left and not args.no_wait else 0)


def _dropped(workspace: Workspace, ended: list[str]) -> Work[None]:
    """Take them out of the list of pods, where that can be written: they have ended all the same."""
    from podlab.lab import rented

    try:
        rented.drop(workspace, ended)
    except BadSettings as error:
        yield Notice(f"They stay in the list of pods for now: {error.message} {error.hint}", "warning")


def _meant(workspace: Workspace, market: Market, args: Namespace) -> Work[list[Launch]]:
    from podlab.lab.rented_names import called_here, launch_among
    from podlab.lab.salvage import endable

    if args.all and args.pods:
        raise BadArgument("--all and names say different things.", hint="Leave one of them away.")
    launches, damage = endable(market.ledger)
    if damage is not None:  # a person who wants an end gets it: what can still be read has the names and ids
        yield Notice(f"{damage.message} What can still be read of it is used. {damage.hint}", "warning")
    if args.all:
        return [launch for launch in called_here(launches) if launch.is_open]
    names: list[str | None] = [*args.pods] or [args.on]
    found = [launch_among(workspace, launches, name) for name in names]
    return list({launch.id: launch for launch in found}.values())


def _question(market: Market, launches: list[Launch]) -> Ask:
    from podlab.lab.money import spent_usd, usd_per_hour
    from podlab.units import usd_text

    said = [
        f"{launch.name} at {launch.provider}{' (simulated)' if launch.simulated else ''}: it has cost "
        f"{usd_text(spent_usd(launch, market.now()))} and costs {usd_text(usd_per_hour(launch))} an hour."
        for launch in launches
    ]
    names = ", ".join(launch.name for launch in launches)
    kept = "What is on its disk is gone for good." if len(launches) == 1 else "What is on their disks is gone for good."
    label = f"End {names}" if len(launches) == 1 else f"End all {len(launches)}"
    return Ask(f"End {names}?", "delete", detail="\n".join([*said, kept]), yes=label)


def _end(market: Market, launches: list[Launch], *, wait: bool) -> Work[list[Launch]]:
    """Ask for the end of all of them first: a proof takes minutes, in which the next one would be billed."""
    from podlab.lab import ending
    from podlab.lab.launches import find

    damages, asked, found = [], 0, []
    try:
        for launch in launches:
            try:
                ending.end(market, launch, why="a person said so", brake="person")
            except StateDamaged as error:  # the next one is billed, too
                damages.append(error)
            asked += 1
        if damages:
            raise StateDamaged(" ".join(error.message for error in damages), hint=damages[-1].hint)
        if not wait:
            return [find(market.ledger, launch.id) or launch for launch in launches]
        for launch in launches:
            found.append((yield from ending.until_proven(market, launch)))
        return found
    except KeyboardInterrupt:
        for launch in launches[len(found) : asked]:
            yield Notice(_not_proven(launch), "warning")
        for launch in launches[asked:]:
            yield Notice(f"{launch.name} may not have been asked to end: podlab pod terminate {launch.name}", "warning")
        raise


def _not_proven(launch: Launch) -> str:
    return f"{launch.name} was asked to end, which is not proven yet: the keeper goes on. See: podlab pod orphans"
