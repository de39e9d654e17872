"""`pod`, as far as a rented pod begins and goes on: plan, create, start, resume, wait, logs."""

from __future__ import annotations

import os
from argparse import Namespace
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.commands.handlers.rentals import detail_of
from podlab.commands.rent_results import CandidateRow, PodPlan, RentalLog, log_text
from podlab.commands.results import Done, Outcome, Plan, PodDetail
from podlab.errors import BadArgument, NotFound, Refused
from podlab.events import Ask, Chunk, Stage, Work

if TYPE_CHECKING:
    from podlab.lab.candidates import Candidate
    from podlab.lab.launches import Launch
    from podlab.lab.market import Market
    from podlab.lab.rent_wish import RentWish
    from podlab.lab.renting import RentPlan
    from podlab.lab.workspace import Workspace
    from podlab.renting import RentalLine


SEEN_LINES = 5000
GUARDED_S = 15.0
"""How long a new pod's protection is waited for: a round of tending comes every ten seconds while one begins."""
ANY_NAME = "podlab-DATE-NNN"
"""What a pod is called that nobody named: the day it is asked for, and a number."""


def plan(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import renting
    from podlab.lab.market import Market

    market = Market.of(workspace)
    found = yield from renting.plan(market, wish_from(workspace, args))
    return Outcome(plan_sheet(found), 0 if found.candidates else 1)


def create(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import renting
    from podlab.lab.crew import Here
    from podlab.lab.market import Market

    market = Market.of(workspace)
    wish = wish_from(workspace, args)
    if args.dry_run:
        found = yield from renting.plan(market, wish)
        return Outcome(plan_sheet(found), 0 if found.candidates else 1)
    if args.interactive:
        wish = yield from _chosen(market, wish)
    launch = yield from renting.create(market, wish, Here(workspace, market, host_key=args.host_key))
    return Outcome((yield from shown(workspace, market, launch)))


def _chosen(market: Market, wish: RentWish) -> Work[RentWish]:
    """The wish for the one machine that a person picks from the plan. Raises Refused where nobody picks."""
    from podlab.lab import renting

    found = yield from renting.plan(market, wish)
    renting.refuse_empty(found)
    lines = tuple(
        f"{each.title}: ${each.usd_per_hour:.3f}/h, stock {each.offer.stock}"
        + (f", {', '.join(each.data_centers or each.offer.data_centers)}" if each.offer.data_centers else "")
        for each in found.candidates
    )
    pretended = " (simulated)" if found.simulated else ""
    answer = yield Ask(f"Which machine of {wish.provider}{pretended}?", "choice", choices=lines)
    if answer is None or not isinstance(answer, int):
        raise Refused("No machine was chosen, so nothing was rented.", hint="Name one: --gpu A40")
    offer = found.candidates[answer].offer
    return replace(wish, gpus=(offer.gpu_id,), cloud=offer.cloud, count=offer.gpu_count)


def start(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import tenure
    from podlab.lab.crew import Here

    market, launch = _meant(workspace, args)
    if args.dry_run:
        return Outcome(Plan((f"ask {launch.provider} to start {launch.name} for ${launch.agreed_usd_per_hour:.3f}/h",
                             "wait until it works")))  # fmt: skip
    launch = yield from tenure.start(market, launch, Here(workspace, market, host_key=args.host_key))
    return Outcome((yield from shown(workspace, market, launch)))


def stop(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import tenure
    from podlab.lab.launches import find

    market, launch = _meant(workspace, args)
    lost = tenure.lost_at_stop(launch)
    if args.dry_run:
        return Outcome(Plan((f"ask {launch.provider} to stop {launch.name}", *([lost] if lost else []))))
    if lost and not launch.is_stopped:
        question = f"Stop {launch.name}{' (simulated)' if launch.simulated else ''}? {lost}"
        if not (
            yield Ask(
                question,
                "delete",
                f"Fetch what you need first: podlab pod pull PATH --on {launch.name}. Where "
                "nothing is to be kept, podlab pod terminate costs nothing afterwards.",
                yes="Stop it",
            )
        ):
            raise Refused(f"{launch.name} was not stopped, so the bill goes on.", hint="Repeat with --yes")
    rental = yield from tenure.stop(market, launch)
    return Outcome(detail_of(find(market.ledger, launch.id) or launch, market.now(), rental=rental))


def wait(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import tenure
    from podlab.lab.crew import Here

    market, launch = _meant(workspace, args)
    launch = yield from tenure.wait(market, launch, Here(workspace, market, host_key=args.host_key))
    return Outcome((yield from shown(workspace, market, launch)))


def claim(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import tenure
    from podlab.lab.crew import Here
    from podlab.lab.launches import find

    yield from ()
    market, launch = _meant(workspace, args)
    if args.dry_run:
        return Outcome(Plan((f"enter {launch.name} ({launch.rental_id}) into the list of pods",)))
    rental = tenure.adopt(market, launch, Here(workspace, market))
    return Outcome(detail_of(find(market.ledger, launch.id) or launch, market.now(), rental=rental))


def _meant(workspace: Workspace, args: Namespace) -> tuple[Market, Launch]:
    from podlab.lab.market import Market
    from podlab.lab.rented_names import launch_meant

    market = Market.of(workspace)
    return market, launch_meant(workspace, market.ledger, args.pod or getattr(args, "on", None))


def shown(workspace: Workspace, market: Market, launch: Launch) -> Work[PodDetail]:
    """A pod that works, with its machine and its money."""
    from podlab.commands.handlers.pod import detail_of_pod
    from podlab.lab import rented

    pod = rented.pod_of(launch)
    detail = yield from detail_of_pod(workspace, pod, host_key=None)
    yield from _guarded(market, launch)
    rental = market.provider(launch.provider).get(launch.rental_id or "")
    return replace(detail, rental=detail_of(launch, market.now(), rental=rental))


def wish_from(workspace: Workspace, args: Namespace) -> RentWish:
    """What was asked for, from the options and the settings. Raises BadArgument naming the option, value and fix."""
    from podlab.lab.rent_wish import wish_of

    return wish_of(
        workspace.value, name=getattr(args, "name", None), provider=args.provider, gpu=args.gpu or (),
        for_model=vars(args)["for"], count=args.count, cloud=args.cloud, region=args.region or (), cuda=args.cuda,
        disk=args.disk, persistent=args.persistent, volume=args.volume, mount=args.mount, image=args.image,
        template=args.template, registry=args.registry, port=args.port or (), env=args.env or (), spot=args.spot,
        max_price=args.max_price, budget=args.budget, ttl=args.ttl, idle=args.idle, lease=args.lease,
        wait=getattr(args, "wait", None), host_key=getattr(args, "host_key", None), notebook=notebook(),
    )  # fmt: skip


def _guarded(market: Market, launch: Launch) -> Work[None]:
    """Until whoever tends pods has spoken to this one's switch: what is shown of its protection is as found then."""
    from podlab.lab.guarding import guard
    from podlab.lab.tender import tending_file

    file, begun_at = tending_file(), market.now()
    while market.now() - begun_at < GUARDED_S:
        if (seen := guard(launch, file)).armed is not None or not seen.tended_by:
            return
        yield Stage("guard", f"Waiting until the {seen.tended_by} has spoken to the switch of {launch.name}")
        market.pause(0.25)


def notebook() -> str:
    """The name of the notebook whose kernel this is, for the bill; "" in a terminal or where nobody says."""
    return os.path.basename(os.environ.get("JPY_SESSION_NAME", ""))


def plan_sheet(found: RentPlan) -> PodPlan:
    """A plan as its document. Its price is the dearest candidate's: a person says yes to that one, too."""
    wish, policy = found.wish, found.policy
    dearest = max(found.candidates, key=lambda each: each.usd_per_hour, default=None)
    if dearest is None:
        return PodPlan(wish.name or ANY_NAME, wish.provider, found.simulated, tuple(map(_row, found.refused)))
    return PodPlan(
        wish.name or ANY_NAME, wish.provider, found.simulated,
        tuple(map(_row, (*found.candidates, *found.refused))), found.usd_per_hour, dearest.disk_usd_per_hour,
        dearest.stopped_usd_per_hour, policy.budget_usd, wish.ttl_s, policy.idle_s, policy.lease_s, found.limit_usd,
        found.left_alone_usd,
        found.left_alone.why, wish.template or wish.image,
    )  # fmt: skip


def _row(candidate: Candidate) -> CandidateRow:
    offer = candidate.offer
    price = None if offer.usd_per_hour is None else candidate.usd_per_hour
    return CandidateRow(
        offer.gpu, offer.gpu_id, offer.gpu_count, offer.cloud, price, offer.stock,
        candidate.data_centers or offer.data_centers, candidate.refused,
    )  # fmt: skip


def logs(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    if args.lines < 1:
        raise BadArgument(f"--lines {args.lines} shows nothing.", hint="Give a number from 1.")
    market, launch = _meant(workspace, args)
    if launch.rental_id is None:
        raise NotFound(f"{launch.name} has no pod at {launch.provider}, so there is no log of it.", hint=launch.why)
    company = market.provider(launch.provider)
    lines = company.logs(launch.rental_id, source=args.source, tail=args.lines, follow=args.follow)
    if not args.follow:
        return Outcome(RentalLog(launch.name, company.name, company.simulated, tuple(lines)))
    seen: deque[RentalLine] = deque(maxlen=SEEN_LINES)
    try:
        for line in lines:
            seen.append(line)
            yield Chunk(log_text(line) + "\n")
    except KeyboardInterrupt:
        if not args.json:  # else nothing was shown yet, and the interrupt is what asks for it
            raise
    if args.json:
        return Outcome(RentalLog(launch.name, company.name, company.simulated, tuple(seen)))
    return Outcome(Done(f"The log of {launch.name} has ended.", {"pod": launch.name}))
