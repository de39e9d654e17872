"""`pod`, as far as money is meant: what pods cost, how long they may live, pods that nobody owns."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import CostList, CostRow, OrphanList, OrphanRow
from podlab.commands.results import Done, Outcome, Plan
from podlab.errors import BadArgument, BadSettings, PodlabError
from podlab.events import Stage, Work
from podlab.units import usd_text

if TYPE_CHECKING:
    from podlab.lab.launches import Launch
    from podlab.lab.market import Market
    from podlab.lab.money import Cost
    from podlab.lab.reconcile import Reconciled
    from podlab.lab.workspace import Workspace
    from podlab.renting import Policy


def cost(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.commands.handlers.rentals import limited
    from podlab.lab import money, volume_costs
    from podlab.lab.launches import all_launches
    from podlab.lab.market import Market
    from podlab.lab.rented_names import called_here, launch_meant

    yield from ()
    market = Market.of(workspace)
    launches = called_here(all_launches(market.ledger))
    if args.pod:
        meant = launch_meant(workspace, market.ledger, args.pod)
        launches = tuple(launch for launch in launches if launch.name == meant.name)
    now = market.now()
    volumes = () if args.pod else volume_costs.costs(volume_costs.rented(market.ledger.entries()), now)
    found = (*money.costs(launches, now, by=args.by), *volumes)
    rows = [row for row in map(_cost_row, found) if _is_shown(row, args)]
    kept = limited(rows, lambda row: not row.open_pods, args.limit)
    kinds = [money.of_kind(launches, simulated=pretended) for pretended in (False, True)]
    sums = money.total(kinds[0], now), replace(money.total(kinds[1], now), simulated=True)
    real, pretended = (_cost_row(volume_costs.with_volumes(each, volumes)) for each in sums)
    any_pretended = bool(kinds[1]) or any(each.simulated for each in volumes)
    caps = money.Caps.of(workspace.value)
    notes = money.cap_warnings(kinds[0], caps, now)
    return Outcome(
        CostList(
            tuple(kept), args.by, real, pretended if any_pretended else None, caps.per_day_usd,
            caps.total_usd, notes, args.limit, len(rows) - len(kept),
        )
    )  # fmt: skip


def _is_shown(row: CostRow, args: Namespace) -> bool:
    return (not args.today or row.today_usd > 0) and (not args.month or row.month_usd > 0)


def _cost_row(cost: Cost) -> CostRow:
    return CostRow(
        cost.of, cost.today_usd, cost.month_usd, cost.total_usd, cost.usd_per_hour, cost.billed_usd,
        cost.difference_usd, cost.pods, cost.open_pods, cost.simulated,
    )  # fmt: skip


def extend(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import money
    from podlab.lab.market import Market
    from podlab.lab.rented_names import launch_meant

    if not (args.ttl or args.budget or args.idle):
        raise BadArgument("Nothing is to be extended.", hint="Say --ttl 1h, --budget 2 or --idle 30m.")
    market = Market.of(workspace)
    launch = launch_meant(workspace, market.ledger, args.pod or args.on)
    policy = _extended(launch.policy, args, market.now())
    text = money.policy_text(policy, market.now(), stopped=launch.is_stopped)
    if args.dry_run:
        return Outcome(Plan((f"change what ends {launch.name}: {text}",)))
    if policy == launch.policy:
        return Outcome(Done(f"{launch.name} keeps its limits. {text}", {"pod": launch.name}))
    changed = yield from money.change(market, launch, policy, money.Caps.of(workspace.value))
    text = money.policy_text(changed.policy, market.now(), stopped=changed.is_stopped)
    return Outcome(Done(f"{launch.name}: {text}", {"pod": launch.name}))


def _extended(policy: Policy, args: Namespace, now: float) -> Policy:
    """The policy with more. Raises BadArgument naming the option, the value and the fix."""
    from podlab import settings
    from podlab.lab.money import extended

    def read(option: str, setting: str, text: str) -> float | None:
        try:
            value: float | None = settings.setting(setting).kind(text)
        except ValueError as error:
            raise BadArgument(f"{option} cannot be {text[:80]!r}.", hint=f"It takes {error}.") from error
        if value is None and option != "--idle":
            raise BadArgument(f"{option} says how much more, and {text!r} is no amount.", hint="Say 1h, or 2 dollars.")
        return value

    more_s = None if args.ttl is None else read("--ttl", "rent.ttl", args.ttl)
    more_usd = None if args.budget is None else read("--budget", "rent.budget_usd", args.budget)
    found = extended(policy, now, more_s=more_s, more_usd=more_usd)
    return found if args.idle is None else replace(found, idle_s=read("--idle", "rent.idle", args.idle))


def orphans(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods, reconcile
    from podlab.lab.market import Market

    market = Market.of(workspace)
    asked = companies(workspace, market, args.provider)
    yield Stage("orphans", f"Holding the ledger against {', '.join(asked) or 'no company'}")
    found = reconcile.reconcile(market, providers=asked, bills=True)
    if not (asked or found.looked_at or found.problems):
        found = replace(found, problems=(_nobody_to_ask(workspace, market),))
    try:
        here: frozenset[str] | None = frozenset(pod.id for pod in pods.all_pods())
    except BadSettings as error:
        here = None
        found = replace(found, problems=(*found.problems, f"The list of pods cannot be read: {error.message}"))
    rows = tuple(_orphans(market, found, here))
    ours = len(found.ours) - sum(row.owner == "ours" and row.launch != "" for row in rows)
    report = OrphanList(rows, found.looked_at, max(0, ours), found.problems)
    return Outcome(report, 1 if found.problems or any(row.owner == "ours" for row in rows) else 0)


def companies(workspace: Workspace, market: Market, named: str | None) -> tuple[str, ...]:
    """The companies that can be asked from here: the one that is named, else those with a key."""
    from podlab.providers import companies as known

    if named:
        market.provider(named)  # a name that is none is told at once
        return (named,)
    found = []
    for name in dict.fromkeys((_usual(workspace), "runpod", "sandbox")):
        try:
            if market.provider(name).rents:
                known.address(name)
                found.append(name)
        except PodlabError:
            continue
    return tuple(found)


def _usual(workspace: Workspace) -> str:
    """The provider that the settings name; the default where they cannot be read."""
    from podlab import settings

    try:
        return str(workspace.value("provider"))
    except BadSettings:
        return str(settings.setting("provider").default)


def _nobody_to_ask(workspace: Workspace, market: Market) -> str:
    """Why there is no company that could say whether anything is orphaned."""
    from podlab.providers import companies as known

    name = _usual(workspace)
    try:
        if market.provider(name).rents:
            known.address(name)
    except PodlabError as error:
        return f"{name} could not be asked: {error.message} {error.hint}".strip()
    return f"{name} rents nothing, and no other company is known here: podlab pod orphans --provider runpod"


def _orphans(market: Market, found: Reconciled, here: frozenset[str] | None) -> Iterator[OrphanRow]:
    """What is not where it should be: ours that no list of pods here has, second pods of an order, others' pods.

    `here` are the ids of the pods in the list, None where it cannot be read."""
    for owned in found.ours:
        launch, rental = owned.launch, owned.rental
        if here is None or launch.id in here or launch.phase.value == "ending":
            continue
        state = rental.state.value if rental is not None else launch.phase.value
        yield OrphanRow(
            launch.name, launch.provider, launch.simulated, "ours", state,
            "it is in no list of pods here" + ("" if rental else ", and the company does not list it now"),
            _price(launch), launch.rental_id, launch.id, launch.asked_at,
            f"podlab pod claim {launch.name}, or podlab pod terminate {launch.name}",
        )  # fmt: skip
    for provider, rental in found.duplicates:
        yield OrphanRow(
            rental.name, provider, market.provider(provider).simulated, "ours", rental.state.value,
            "a second pod of one order; its end was asked for", rental.usd_per_hour, rental.id,
        )  # fmt: skip
    for provider, bill in found.unlisted:
        yield OrphanRow(
            bill.rental_id, provider, market.provider(provider).simulated, "ours", "unknown",
            f"{usd_text(bill.usd)} were billed for it, and it is listed nowhere", None, bill.rental_id,
            fix=f"Look at it on the page of {provider}.",
        )  # fmt: skip
    for provider, rental in found.foreign:
        yield OrphanRow(
            rental.name, provider, market.provider(provider).simulated, "foreign", rental.state.value,
            "not rented from here: podlab never touches it", rental.usd_per_hour, rental.id,
            created_at=rental.created_at,
        )  # fmt: skip


def _price(launch: Launch) -> float:
    from podlab.lab.money import usd_per_hour

    return usd_per_hour(launch)
