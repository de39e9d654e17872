"""The rules that end a rented pod, decided from facts alone: no clock, no file, no network in here.

A kernel and the keeper look at the same facts and come to the same verdict; the switch on the pod keeps the same
limits by itself. What a rule needs and nobody knows counts for the pod, except where that would let it live for ever.

Time is a matter of witnesses, for a computer's clock may be set by anybody. A pod is as old as its provider's times
say; without them, as old as the wall clock made it when we first looked, plus what a steady clock (one that nobody can
set, and that goes on in sleep) has counted since. And it is at least as old as we have watched it, or as it says it is
up: no clock set back makes it younger than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from podlab.lab.launches import Launch, Moment, Phase, price
from podlab.lab.money import GRACE_S, STOPPED_KEPT_S, WARN_RATIO, WARN_S, limit, spent_usd
from podlab.renting import Armed, Rental, RentalState
from podlab.units import duration_text

Rule = Literal["", "deadline", "budget", "day", "total", "idle", "unarmed", "silent", "price", "error"]


@dataclass(frozen=True)
class Rules:
    """How patient the rules are. Seconds; `price_slack_ratio` is what a bill may be above what was agreed."""

    arm_s: float = 900.0
    """From the start of a pod's container until its switch has to be armed."""
    pull_s: float = 2100.0
    """The same for a pod whose container does not run yet: images of many gigabytes are pulled meanwhile."""
    error_s: float = 300.0
    stopped_kept_s: float = STOPPED_KEPT_S
    """How long behind its deadline a stopped pod's disk is kept: nothing but its budget ends it sooner."""
    grace_s: float = GRACE_S
    price_slack_ratio: float = 0.02


@dataclass(frozen=True)
class Clocks:
    """How old a pod is by each witness: seconds since it was asked for. None: that one says nothing."""

    wall_s: float
    steady_s: float
    """By the wall clock when we first looked, and by a steady clock since."""
    watched_s: float = 0.0
    """By the steady clock alone, over all times that somebody here watched it."""
    provider_s: float | None = None
    uptime_s: float | None = None

    def age_s(self) -> float:
        """How old it is."""
        believed_s = self.steady_s if self.provider_s is None else self.provider_s
        return max(0.0, believed_s, self.watched_s, self.uptime_s or 0.0)


@dataclass(frozen=True)
class Watched:
    """What is remembered of how long a pod was watched. `steady_at` is a reading of the steady clock of that `boot`."""

    first_age_s: float
    """How old the wall clock made it when we first looked."""
    watched_s: float
    steady_at: float
    boot: str


def look(before: Watched | None, launch: Launch, now: float, steady: float, boot: str) -> Watched:
    """The memory of a pod after one more look at the clocks. The steady clock starts anew with each boot."""
    wall_s = Moment(now, steady, boot).since(launch.asked)  # by the steady clock where it was asked for in this boot
    if before is None:
        return Watched(wall_s, 0.0, steady, boot)
    if before.boot == boot and steady >= before.steady_at:
        return Watched(before.first_age_s, before.watched_s + steady - before.steady_at, steady, boot)
    known_s = max(before.first_age_s + before.watched_s, wall_s)
    return Watched(known_s - before.watched_s, before.watched_s, steady, boot)


def clocks(watched: Watched, launch: Launch, now: float, rental: Rental | None) -> Clocks:
    """What each witness says now; `watched` is from this look."""
    return Clocks(
        now - launch.asked_at,
        watched.first_age_s + watched.watched_s,
        watched.watched_s,
        None if rental is None else provider_age_s(rental),
        None if rental is None else rental.uptime_s,
    )


@dataclass(frozen=True)
class Seen:
    """What is known of a pod at one moment. `rental` None: its provider did not answer, or does not list it."""

    launch: Launch
    clocks: Clocks
    rental: Rental | None = None
    armed: Armed | None = None
    """What its switch said just now; None when it was not heard."""
    silent_s: float = 0.0
    """How long it was tried in vain to hear it."""
    unarmed_s: float = 0.0
    """How long it was watched without an armed switch since its last start."""
    day_cap: str = ""
    """The day's cap in words, when it is used up; `total_cap` likewise."""
    total_cap: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is to be done. `end` says why a pod has to end; "": it may live."""

    end: str = ""
    rule: Rule = ""
    warnings: tuple[str, ...] = ()


def provider_age_s(rental: Rental) -> float | None:
    """How old a pod is by its provider's clock alone: no clock of ours has a part in it."""
    if rental.created_at is None or rental.started_at is None or rental.uptime_s is None:
        return None
    age_s = rental.started_at + rental.uptime_s - rental.created_at
    return age_s if age_s >= 0 else None


def started_at(launch: Launch) -> float:
    """When a pod began to run the last time: it is asked for, or started after a stop."""
    found = launch.asked_at
    for before, span in zip(launch.spans, launch.spans[1:], strict=False):
        if before.state is RentalState.STOPPED and span.state is not RentalState.STOPPED:
            found = span.begins_at
    return found


def is_armed(launch: Launch) -> bool:
    """Whether its switch said that it is armed since the last start."""
    return launch.armed_at is not None and launch.armed_at >= started_at(launch)


def is_stopped(seen: Seen) -> bool:
    """Whether only its disk is left, as its provider says now or said last."""
    if seen.rental is not None:
        return seen.rental.state is RentalState.STOPPED
    return seen.launch.is_stopped


def decide(seen: Seen, rules: Rules = Rules(), *, asked: bool = True) -> Verdict:
    """What is to be done with a pod that lives. One whose end was asked for already has no rules any more.

    `asked` False: its switch is still to be asked, so what it says or does not say is not held against it yet.
    """
    if seen.launch.phase is not Phase.LIVE:
        return Verdict()
    now = seen.launch.asked_at + seen.clocks.age_s()
    for check in (_by_limits, _by_provider, *([_by_switch] if asked else [])):
        verdict = check(seen, now, rules)
        if verdict.end:
            return verdict
    return Verdict(warnings=_warnings(seen, now))


def _by_limits(seen: Seen, now: float, rules: Rules) -> Verdict:
    launch, policy = seen.launch, seen.launch.policy
    stopped = is_stopped(seen)
    kept_s = rules.stopped_kept_s if stopped else 0.0
    if policy.deadline_at is not None and now >= policy.deadline_at + kept_s:
        behind = f", and its disk was kept for {duration_text(kept_s)} behind it" if stopped else ""
        return Verdict(f"its deadline is reached{behind}", "deadline")
    spent = spent_usd(launch, now)
    if policy.budget_usd is not None and spent >= policy.budget_usd:
        return Verdict(f"its budget of ${policy.budget_usd:.2f} is used up", "budget")
    if seen.day_cap and not stopped:
        return Verdict(seen.day_cap, "day")
    return Verdict(seen.total_cap, "total") if seen.total_cap else Verdict()


def _by_provider(seen: Seen, now: float, rules: Rules) -> Verdict:
    launch, rental = seen.launch, seen.rental
    if rental is None or is_stopped(seen):
        return Verdict()
    billed, agreed = price(launch, rental), launch.agreed_usd_per_hour
    if billed is not None and agreed > 0 and billed > agreed * (1 + rules.price_slack_ratio) + 0.005:
        return Verdict(f"it costs ${billed:.2f} an hour, and ${agreed:.2f} were agreed", "price")
    last = launch.spans[-1] if launch.spans else None
    if (
        rental.state is RentalState.ERROR
        and last is not None
        and last.state is RentalState.ERROR
        and now - last.begins_at >= rules.error_s
    ):
        return Verdict(f"its provider says that it is broken ({rental.said or 'error'})", "error")
    return Verdict()


def _by_switch(seen: Seen, now: float, rules: Rules) -> Verdict:
    launch, armed, policy = seen.launch, seen.armed, seen.launch.policy
    if is_stopped(seen):
        return Verdict()
    if armed is not None and armed.armed:
        idle_s = armed.idle_for_s
        if policy.idle_s is not None and idle_s is not None and idle_s >= policy.idle_s and not armed.busy:
            return Verdict(f"it was idle for {duration_text(idle_s)}", "idle")
        return Verdict()
    limit_s, waited_s = _unarmed(seen, now, rules)
    if max(waited_s, seen.unarmed_s) >= limit_s:
        why = armed.detail if armed is not None and armed.detail else "it was not heard"
        return Verdict(f"its switch was not armed within {duration_text(limit_s)}: {why}", "unarmed")
    if is_armed(launch) and seen.silent_s >= policy.lease_s + rules.grace_s:
        said = f"no word reached it for {duration_text(seen.silent_s)}, and its switch has not ended it"
        return Verdict(said, "silent")
    return Verdict()


def _unarmed(seen: Seen, now: float, rules: Rules) -> tuple[float, float]:
    """How long this pod may be without an armed switch, and how long it has been since it began to run."""
    launch, rental = seen.launch, seen.rental
    if is_armed(launch):
        return rules.arm_s, 0.0
    waited_s = now - max(started_at(launch), launch.live_at or launch.asked_at)
    if rental is None or not rental.has_runtime:
        return rules.pull_s, waited_s
    return rules.arm_s, waited_s if rental.uptime_s is None else min(waited_s, rental.uptime_s)


def _warnings(seen: Seen, now: float) -> tuple[str, ...]:
    launch, rental, policy = seen.launch, seen.rental, seen.launch.policy
    said = []
    if rental is not None and rental.state is RentalState.UNKNOWN:
        word = rental.said or "nothing"
        said.append(f"{launch.name}: its provider says {word!r} of it, which means nothing here. It counts as billed.")
    if rental is not None and rental.state is RentalState.ERROR:
        said.append(f"{launch.name}: its provider says that it is broken.")
    if seen.armed is not None and not seen.armed.armed:
        said.append(f"{launch.name}: its switch is not armed: {seen.armed.detail or 'it does not say why'}.")
    ends = limit(launch, now)
    if ends is not None:
        spent, left_s = spent_usd(launch, now), ends.at - now
        if is_stopped(seen):
            if ends.rule == "deadline" and left_s <= 0:
                said.append(f"{launch.name} is stopped and behind its deadline; its disk is still billed.")
        elif ends.rule == "deadline" and policy.deadline_at is not None:
            if left_s <= min(WARN_S, (1 - WARN_RATIO) * (policy.deadline_at - launch.asked_at)):
                said.append(f"{launch.name} ends at its deadline, in {duration_text(max(1.0, left_s))}.")
        elif policy.budget_usd is not None and (left_s <= WARN_S or spent >= WARN_RATIO * policy.budget_usd):
            said.append(
                f"{launch.name} has used ${spent:.2f} of its ${policy.budget_usd:.2f} and ends in "
                f"{duration_text(max(1.0, left_s))}."
            )
    return tuple(said)
