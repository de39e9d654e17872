"""What rented pods cost: so far, today, this month, at the worst; the caps on it, and how a limit is moved.

All but `change` is arithmetic over what the ledger says. Our own figure is the time in each state at its price; the
provider's bill stands beside it and wins where it says more. Pretended money is never added to real money: whoever
adds up hands in launches of one kind (`of_kind`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any, Literal

from podlab.errors import Refused
from podlab.events import Ask, Work
from podlab.lab.launches import Launch, Phase, all_launches, find, fold, policy_fields
from podlab.lab.market import Market
from podlab.ledger import Entry
from podlab.renting import Policy, Protection, RentalState
from podlab.units import duration_text

GRACE_S = 120.0
"""From the moment a pod has to end to the moment it is no longer billed: the switch looks every few seconds, asks its
provider, and may have to ask again."""
ARMED_S = 900.0
"""The longest that a pod may take until its switch is armed."""
FIRST_WORD_S = 900.0
"""So long at least a switch waits for a first word (remote/watchdog.py): images are slow, and so is who rents."""
SETTLED_S = 2 * 3600.0
"""So long after its end a pod's bill is final: providers bill every few minutes and add up by the hour."""
WARN_RATIO = 0.8
WARN_S = 900.0
STOPPED_KEPT_S = 7 * 86400.0
"""So long the disk of a stopped pod is kept behind its deadline."""
LEAST_S = 600.0
"""A pod that could not live so long within the caps is not worth its start."""

By = Literal["pod", "model", "notebook"]


@dataclass(frozen=True)
class Caps:
    """What all pods together may cost, in dollars, and how many may live. None: no cap."""

    per_day_usd: float | None = None
    total_usd: float | None = None
    max_pods: int = 4

    @classmethod
    def of(cls, value: Callable[[str], Any]) -> Caps:
        """As the settings say. `value` gives a setting in force."""
        return cls(value("money.per_day_usd"), value("money.total_usd"), value("rent.max_pods"))


@dataclass(frozen=True)
class Cost:
    """What something has cost. Dollars; `difference_usd` is the bill less our figure for the same time."""

    of: str
    today_usd: float
    month_usd: float
    total_usd: float
    usd_per_hour: float
    """Now: 0 when nothing of it is billed any more."""
    billed_usd: float | None = None
    difference_usd: float | None = None
    pods: int = 1
    open_pods: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class Limit:
    """What ends a pod first if nothing else does: when that is, and what it has cost by then."""

    at: float
    usd: float
    rule: Literal["deadline", "budget"]


@dataclass(frozen=True)
class WorstCase:
    """What a pod has cost when it has ended, if this computer is gone from now on. `usd` None: there is no bound."""

    usd: float | None
    until: float | None
    why: str


def of_kind(launches: Iterable[Launch], *, simulated: bool) -> tuple[Launch, ...]:
    """Those that cost real money, or those that only pretend to."""
    return tuple(launch for launch in launches if launch.simulated is simulated)


def day_begins(now: float, zone: tzinfo | None = None) -> float:
    """The last midnight where this computer is (or in `zone`), also on a day of 23 or 25 hours, or without one."""
    return _midnight(datetime.fromtimestamp(now, zone).date(), zone)


def day_ends(now: float, zone: tzinfo | None = None) -> float:
    """The next midnight."""
    return _midnight(datetime.fromtimestamp(now, zone).date() + timedelta(days=1), zone)


def month_begins(now: float, zone: tzinfo | None = None) -> float:
    """The midnight this month began with."""
    return _midnight(datetime.fromtimestamp(now, zone).date().replace(day=1), zone)


def _midnight(day: date, zone: tzinfo | None) -> float:
    # Without a zone Python asks the computer's own, as it was on that day.
    return datetime.combine(day, time.min, zone).timestamp()


def spent_usd(launch: Launch, now: float) -> float:
    """What a pod has cost up to `now`: our figure, or the bill and what has come since where that is more.

    The final bill of a pod that has ended is the figure, also where it is less.
    """
    ours = launch.usd(now)
    if launch.billed_usd is None or launch.billed_at is None:
        return ours
    if launch.ended_at is not None and launch.billed_at >= launch.ended_at + SETTLED_S:
        return launch.billed_usd
    return max(ours, launch.billed_usd + max(0.0, ours - launch.usd(launch.billed_at)))


def up_to(launch: Launch, now: float) -> Launch:
    """A launch that has cost what it has at `now` and nothing more, whatever time it is then asked for."""
    spans = tuple(
        replace(span, ends_at=max(span.begins_at, now if span.ends_at is None else min(span.ends_at, now)))
        for span in launch.spans
        if span.begins_at <= now
    )
    return replace(launch, spans=spans)


def between_usd(launch: Launch, begins_at: float, now: float) -> float:
    """What a pod cost from then to `now`. What a bill says more or less is spread over its whole life."""
    ours = launch.usd(now)
    if ours <= 0:
        return spent_usd(launch, now) if launch.asked_at >= begins_at else 0.0
    return (ours - launch.usd(min(begins_at, now))) * spent_usd(launch, now) / ours


def usd_per_hour(launch: Launch) -> float:
    """What a pod costs an hour now: 0 when it has ended."""
    if not launch.is_open:
        return 0.0
    last = launch.spans[-1] if launch.spans else None
    if last is None:  # asked for: it may be there
        return launch.usd_per_hour
    return last.usd_per_hour if last.ends_at is None and last.state is not RentalState.TERMINATED else 0.0


def costs(launches: Iterable[Launch], now: float, *, by: By = "pod", zone: tzinfo | None = None) -> tuple[Cost, ...]:
    """What each pod, model or notebook has cost, the dearest first, of equal ones the newest; "" stands for pods
    without a model or notebook."""
    groups: dict[tuple[str, bool], list[Launch]] = {}
    for launch in launches:
        if launch.phase is not Phase.REFUSED:
            key = {"pod": launch.id, "model": launch.model, "notebook": launch.notebook}[by]
            groups.setdefault((key, launch.simulated), []).append(launch)
    found = [
        _cost(group[0].name if by == "pod" else key, group, now, zone) for (key, _), group in groups.items()
    ]  # fmt: skip
    found.reverse()
    return tuple(sorted(found, key=lambda cost: -cost.total_usd))


def total(launches: Sequence[Launch], now: float, zone: tzinfo | None = None) -> Cost:
    """What these have cost together; launches of one kind."""
    return _cost("", launches, now, zone)


def _cost(of: str, group: Sequence[Launch], now: float, zone: tzinfo | None) -> Cost:
    day, month = day_begins(now, zone), month_begins(now, zone)
    billed = [launch for launch in group if launch.billed_usd is not None and launch.billed_at is not None]
    return Cost(
        of,
        sum(between_usd(launch, day, now) for launch in group),
        sum(between_usd(launch, month, now) for launch in group),
        sum(spent_usd(launch, now) for launch in group),
        sum(usd_per_hour(launch) for launch in group),
        sum(launch.billed_usd or 0.0 for launch in billed) if billed else None,
        sum((launch.billed_usd or 0.0) - launch.usd(launch.billed_at or now) for launch in billed) if billed else None,
        len(group),
        sum(launch.is_open for launch in group),
        group[0].simulated if group else False,
    )


def limit(launch: Launch, now: float) -> Limit | None:
    """What ends this pod first by its policy; None when nothing does. In the past when it is overdue."""
    found = []
    spent, price = spent_usd(launch, now), usd_per_hour(launch)
    if (deadline_at := launch.policy.deadline_at) is not None:
        found.append(Limit(deadline_at, spent + max(0.0, deadline_at - now) / 3600 * price, "deadline"))
    if (budget := launch.policy.budget_usd) is not None and price > 0:
        found.append(Limit(now + (budget - spent) / price * 3600, max(budget, spent), "budget"))
    return min(found, key=lambda each: each.at, default=None)


def most_usd(policy: Policy, price: float, now: float, *, spent: float = 0.0, kept_usd: float = 0.0) -> float | None:
    """What a pod can cost in its life if it is used to its limits; None: there is no limit.

    `kept_usd` is what its disk costs behind the deadline.
    """
    found = [max(policy.budget_usd, spent)] if policy.budget_usd is not None else []
    if policy.deadline_at is not None:
        found.append(spent + max(0.0, policy.deadline_at - now) / 3600 * price + kept_usd)
    return min(found) + GRACE_S / 3600 * price if found else None


def worst_case(launch: Launch, now: float, protection: Protection, *, lease_left_s: float | None = None) -> WorstCase:
    """What a pod costs in the end if this computer is gone from now on.

    `protection` is the outcome of a check (tending.guard), `lease_left_s` what the switch said it has left.
    """
    spent, price = spent_usd(launch, now), usd_per_hour(launch)
    if not launch.is_open or price <= 0:
        return WorstCase(spent, now, "nothing of it is billed any more")
    if is_unseen(launch):
        return _worst_unseen(launch, now, price)
    if launch.is_stopped:
        return WorstCase(None, None, f"it is stopped, and its disk costs ${price:.3f} an hour until it is terminated")
    own = limit(launch, now)
    if protection is Protection.PROTECTED or lease_left_s is not None:  # whoever tends it, its switch was heard
        left_s = launch.policy.lease_s if lease_left_s is None else min(lease_left_s, launch.policy.lease_s)
        ends_at = now + max(0.0, left_s)
        why = f"its switch ends it {duration_text(max(1.0, left_s))} after the last word from here"
        if own is not None and own.at < ends_at:
            ends_at, why = max(now, own.at), f"its switch ends it at its {own.rule}"
        until = ends_at + GRACE_S
        return WorstCase(spent + (until - now) / 3600 * price, until, why)
    if launch.armed_at is not None and own is not None:
        until = max(now, own.at) + GRACE_S
        usd = spent + (until - now) / 3600 * price
        return WorstCase(usd, until, f"its switch was armed, but was not heard lately; it ends it at its {own.rule}")
    heard = "" if launch.armed_at is not None else "its switch was not heard yet, and without one "
    why = f"{heard}nobody else ends it: it is billed until the account has no money left"
    return WorstCase(None, None, why)


def is_unseen(launch: Launch) -> bool:
    """Whether a pod was asked for and nothing of it was ever seen: it may be there."""
    return launch.is_open and launch.rental_id is None and launch.live_at is None


def worst_case_of_order(policy: Policy, price: float, now: float) -> WorstCase:
    """The same for a pod that is only planned: this computer is gone as soon as it has asked for it.

    Its switch was never spoken to then, and waits for a first word from when it is armed; until then nothing ends it.
    """
    until = now + ARMED_S + _first_word_s(policy) + GRACE_S
    starts = f"{_without_word(policy)}; {duration_text(ARMED_S)} are counted for that start"
    return WorstCase((until - now) / 3600 * price, until, f"{starts}, and nobody ends one whose container never starts")


def _worst_unseen(launch: Launch, now: float, price: float) -> WorstCase:
    """Of one that was asked for and never seen. It is billed from when it was asked for, if it came at all; and as long
    as its order may be on its way, it may come now."""
    sent_at = now if launch.unclear is None else launch.unclear.at
    worst = worst_case_of_order(launch.policy, price, sent_at)
    until = max(now, worst.until or now)
    usd = (until - min(launch.asked_at, now)) / 3600 * price
    return WorstCase(usd, until, f"nothing of it was seen yet; if it came, {worst.why}")


def _first_word_s(policy: Policy) -> float:
    return max(policy.lease_s, FIRST_WORD_S)


def _without_word(policy: Policy) -> str:
    return f"its switch ends it {duration_text(_first_word_s(policy))} after its start without a word from here"


def check_order(
    launches: Iterable[Launch], price: float, caps: Caps, now: float, *, simulated: bool = False, count: int = 1
) -> tuple[str, ...]:
    """Refuse what the caps do not allow; returns what a person should know of them before saying yes.

    `price` is of one pod, its disk included. Raises Refused naming the cap and the setting that moves it.
    """
    same = of_kind(launches, simulated=simulated)
    living = [launch for launch in same if launch.is_open]
    if len(living) + count > caps.max_pods:
        names = ", ".join(launch.name for launch in living)
        many = "1 rented pod" if len(living) == 1 else f"{len(living)} rented pods"
        said = f"{many} may be billed now ({names}), and rent.max_pods is {caps.max_pods}."
        raise Refused(
            said if living else f"{count} pods are more than rent.max_pods, which is {caps.max_pods}.",
            hint="End one (podlab pod terminate NAME), or allow more: podlab config set rent.max_pods N",
        )
    return _check_left(same, sum(usd_per_hour(launch) for launch in living) + price * count, caps, now)


def _check_left(same: Sequence[Launch], together: float, caps: Caps, now: float) -> tuple[str, ...]:
    """How long what is left of the caps lasts at `together` dollars an hour. Raises Refused where that is not worth a
    start, or an extension."""
    notes = []
    for name, left, what in _left(same, caps, now):
        lasts_s = left / together * 3600 if together > 0 else math.inf
        if lasts_s < LEAST_S:
            raise Refused(
                f"${max(0.0, left):.2f} of {what} are left, which would be used up in "
                f"{duration_text(max(0.0, lasts_s))} at ${together:.2f} an hour.",
                hint=f"Allow more: podlab config set {name} AMOUNT",
            )
        if lasts_s < 86400:
            notes.append(f"{what} is used up in {duration_text(lasts_s)}, and every rented pod ends then.")
    return tuple(notes)


def day_used_up(launches: Iterable[Launch], caps: Caps, now: float) -> str:
    """The day's cap in words when it is used up, else "". Launches of one kind."""
    return "" if caps.per_day_usd is None else _used_up(tuple(launches), Caps(per_day_usd=caps.per_day_usd), now)


def total_used_up(launches: Iterable[Launch], caps: Caps, now: float) -> str:
    """The same for the cap on all pods together."""
    return "" if caps.total_usd is None else _used_up(tuple(launches), Caps(total_usd=caps.total_usd), now)


def _used_up(launches: Sequence[Launch], caps: Caps, now: float) -> str:
    return next((f"{what} is used up" for _, left, what in _left(launches, caps, now) if left <= 0), "")


def cap_warnings(launches: Iterable[Launch], caps: Caps, now: float) -> tuple[str, ...]:
    """What should be said before a cap on all pods is reached. Launches of one kind."""
    same = tuple(launches)
    together = sum(usd_per_hour(launch) for launch in same)
    found = []
    for name, left, what in _left(same, caps, now):
        cap = caps.per_day_usd if name.startswith("money.per_day") else caps.total_usd
        if together > 0 and cap is not None and (left <= (1 - WARN_RATIO) * cap or left / together * 3600 <= WARN_S):
            lasts = duration_text(max(0.0, left / together * 3600))
            found.append(f"${max(0.0, left):.2f} of {what} are left: every rented pod ends in {lasts}.")
    return tuple(found)


def _left(launches: Sequence[Launch], caps: Caps, now: float) -> list[tuple[str, float, str]]:
    """Each cap that is set: its setting, the dollars left of it, and what it is called."""
    found = []
    if caps.per_day_usd is not None:
        today = sum(between_usd(launch, day_begins(now), now) for launch in launches)
        found.append(("money.per_day_usd", caps.per_day_usd - today, f"the day's ${caps.per_day_usd:g}"))
    if caps.total_usd is not None:
        spent = sum(spent_usd(launch, now) for launch in launches)
        found.append(("money.total_usd", caps.total_usd - spent, f"the ${caps.total_usd:g} for all pods"))
    return found


def change(market: Market, launch: Launch, policy: Policy, caps: Caps) -> Work[Launch]:
    """Give a pod another policy: in the ledger at once, on the pod with the next beat. What may cost more asks.

    Raises Refused when the answer is no or nobody could answer, when a cap on all pods would end it all the same, when
    the pod has ended or has to end, and when somebody else moved its limits since `launch` was read.
    """
    _refuse_over(launch)
    now = market.now()
    if _may_cost_more(launch.policy, policy):
        spent, price = spent_usd(launch, now), usd_per_hour(launch)
        kept_usd = 0.0
        if launch.is_stopped:  # it may be started again until its deadline, or lie there behind it
            price, kept_usd = launch.agreed_usd_per_hour, launch.stopped_usd_per_hour * STOPPED_KEPT_S / 3600
        same = of_kind(all_launches(market.ledger), simulated=launch.simulated)
        notes = _check_left(same, sum(usd_per_hour(each) for each in same), caps, now)
        most = most_usd(policy, price, now, spent=spent, kept_usd=kept_usd)
        usd = "without any limit" if most is None else f"up to ${most:.2f}"
        pretended = " (simulated)" if launch.simulated else ""
        resting = f", and ${usd_per_hour(launch):.3f}/h while it is stopped" if launch.is_stopped else ""
        cost = (("price", f"${price:.3f}/h{resting}"), ("has cost", f"${spent:.2f}"), ("cap", usd))
        answer = yield Ask(
            f"May {launch.name} cost {usd}?{pretended}", "price", detail="\n".join(notes),
            facts=(*cost, *policy_facts(policy, now)), yes=f"Let it cost {usd}",
        )  # fmt: skip
        if not answer:
            why = "Nobody could be asked" if answer is None else "The answer was no"
            raise Refused(f"{why}, so {launch.name} keeps its limits.", hint="Say it in advance with --yes.")

    def decide(entries: list[Entry]) -> dict[str, str]:
        known = next((each for each in fold(entries) if each.id == launch.id), launch)
        _refuse_over(known)
        if known.policy != launch.policy:
            raise Refused(
                f"The limits of {launch.name} were moved elsewhere meanwhile, so they were left as they are now.",
                hint=f"See podlab pod show {launch.name}, then repeat it.",
            )
        return {"serial": str(known.policy_serial + 1), **policy_fields(policy)}

    market.ledger.append_checked("rent.policy", launch.id, decide)
    return find(market.ledger, launch.id) or replace(launch, policy=policy)


def _refuse_over(launch: Launch) -> None:
    if launch.phase in (Phase.ENDED, Phase.REFUSED, Phase.ENDING):
        raise Refused(f"{launch.name} has ended or is ending: its limits move no more.", hint="Rent another one.")


def extended(
    policy: Policy, now: float, *, more_s: float | None = None, more_usd: float | None = None
) -> Policy:  # fmt: skip
    """A policy with more time or money. It counts from the limit that was, and from now where that has passed (a
    stopped pod outlives its deadline); a rule that was off stays off."""
    deadline_at, budget = policy.deadline_at, policy.budget_usd
    if more_s is not None and deadline_at is not None:
        deadline_at = max(deadline_at, now) + more_s
    if more_usd is not None and budget is not None:
        budget += more_usd
    return replace(policy, deadline_at=deadline_at, budget_usd=budget)


def policy_text(policy: Policy, now: float, *, stopped: bool = False) -> str:
    """When a pod with this policy ends, in a sentence; for one that is stopped, what holds until it is started, too."""
    rules = [] if policy.deadline_at is None else [_deadline_text(policy.deadline_at, now)]
    running = f"ends {', or '.join((*rules, *_other_rules(policy)))}."
    if not stopped:
        return f"It {running}"
    found = [] if policy.deadline_at is None else [_deadline_text(policy.deadline_at + STOPPED_KEPT_S, now)]
    if policy.budget_usd is not None:
        found.append(f"when ${policy.budget_usd:.2f} are used")
    resting = ", or ".join(found) or "never by itself"
    over = policy.deadline_at is not None and policy.deadline_at <= now
    then = "to start it takes more time first (--ttl)." if over else f"started again it {running}"
    return f"It is stopped: its disk ends {resting}, if this computer is there to end it; {then}"


def policy_facts(policy: Policy, now: float) -> tuple[tuple[str, str], ...]:
    """The same as facts: its deadline, and what else ends it."""
    deadline = "none" if policy.deadline_at is None else _deadline_text(policy.deadline_at, now)
    return ("deadline", deadline), ("ends too", ", or ".join(_other_rules(policy)))


def _deadline_text(deadline_at: float, now: float) -> str:
    return f"in {duration_text(max(0.0, deadline_at - now))}"


def _other_rules(policy: Policy) -> list[str]:
    rules = []
    if policy.budget_usd is not None:
        rules.append(f"when ${policy.budget_usd:.2f} are used")
    if policy.idle_s is not None:
        rules.append(f"when it was idle for {duration_text(policy.idle_s)}")
    rules.append(f"{duration_text(policy.lease_s)} after the last word from this computer")
    return rules


def _may_cost_more(old: Policy, new: Policy) -> bool:
    pairs = (
        (old.deadline_at, new.deadline_at), (old.budget_usd, new.budget_usd), (old.idle_s, new.idle_s),
        (old.lease_s, new.lease_s),
    )  # fmt: skip
    return any(before is not None and (after is None or after > before) for before, after in pairs)
