"""Word for the switch on a rented pod: it renews the pod's lease, brings the policy, and hears what the switch says.

A policy counts by its serial: an older one never takes the place of a newer one there, and a policy is tightened or
extended in no other way. Deadlines travel as seconds left, so that the two clocks need not agree. Who beats compares
what comes back with what the ledger says (`difference`): a policy on the pod that is not ours is no protection.
"""

from __future__ import annotations

import json

from podlab.errors import EngineUnavailable
from podlab.lab.launches import Launch
from podlab.lab.talk import PROTOCOL, Talk, begin, program
from podlab.renting import Armed
from podlab.transport.base import Transport
from podlab.wire import Wire

SILENCE_S = 25.0
"""A switch that was killed a moment ago is back within seconds, and is waited for."""
SLACK_S = 120.0
"""How far two deadlines may be apart before they count as different: what a word takes, and two clocks' drift."""
BUSY_LIMIT = 20


def beat(transport: Transport, launch: Launch, *, now: float) -> Armed:
    """Renew the lease of a launch's pod, with its policy as the ledger has it `now`; what the switch says of itself.

    A pod without a switch answers too: not armed, with the reason. Raises as `Transport.start` does; LinkLost when the
    pod says nothing for SILENCE_S; SupervisorError for an answer that makes no sense.
    """
    policy = launch.policy
    return _asked(transport, {
        "op": "beat", "launch": launch.id, "serial": launch.policy_serial, "lease_s": policy.lease_s,
        "idle_s": policy.idle_s, "budget_usd": policy.budget_usd, "spent_usd": launch.usd(now),
        "usd_per_hour": launch.usd_per_hour,
        "deadline_left_s": None if policy.deadline_at is None else policy.deadline_at - now,
    })  # fmt: skip


def tell(transport: Transport, launch: Launch) -> Armed:
    """What the switch says of itself, without renewing anything. Raises as `beat` does."""
    return _asked(transport, {"op": "tell", "launch": launch.id})


def difference(said: Armed, launch: Launch, *, now: float) -> str:
    """How the policy on the pod differs from the ledger's, "" when it does not. `said` is a beat's answer of `now`."""
    policy = launch.policy
    if not said.has_switch:
        return "there is no switch on the pod"
    if said.policy_serial != launch.policy_serial:
        return f"the pod keeps policy {said.policy_serial}, the ledger has {launch.policy_serial}"
    if said.idle_s != policy.idle_s:
        return f"the pod ends when idle for {said.idle_s} s, the ledger says {policy.idle_s}"
    if said.budget_usd != policy.budget_usd:
        return f"the pod ends at {said.budget_usd} USD, the ledger says {policy.budget_usd}"
    if said.lease_s != policy.lease_s:
        return f"the pod lives {said.lease_s} s without word, the ledger says {policy.lease_s}"
    left_s = None if policy.deadline_at is None else policy.deadline_at - now
    if (left_s is None) != (said.deadline_left_s is None):
        return "the pod has a deadline, the ledger none" if left_s is None else "the pod has no deadline"
    if left_s is not None and said.deadline_left_s is not None and abs(left_s - said.deadline_left_s) > SLACK_S:
        return f"the pod's deadline is in {said.deadline_left_s:.0f} s, the ledger's in {left_s:.0f} s"
    return ""


def _asked(transport: Transport, request: dict[str, object]) -> Armed:
    given = json.dumps({"v": PROTOCOL, **request}).encode() + b"\n"
    source = program("beat", "machine", "switch")
    try:
        with Talk(begin(transport, source, given), transport.pod, SILENCE_S) as talk:
            for answer in talk:
                return _read(Wire(answer, "the switch's answer"))
            raise talk.broken_off()
    except EngineUnavailable as error:  # no Python there, so no switch either
        return Armed(False, error.message, has_switch=False)


def _read(said: Wire) -> Armed:
    if not said.flag("there"):
        return Armed(False, said.text("detail", 600), has_switch=False)
    return Armed(
        said.flag("armed"), said.text("detail", 600),
        lease_left_s=said.maybe("lease_left_s", said.number),
        deadline_left_s=said.maybe("deadline_left_s", said.number),
        idle_for_s=said.maybe("idle_for_s", said.number), idle_s=said.maybe("idle_s", said.number),
        busy=said.texts("busy", 40, BUSY_LIMIT), up_s=said.maybe("up_s", said.number),
        policy_serial=said.whole("serial"), ending=said.flag("ending"),
        lease_s=said.maybe("lease_s", said.number), budget_usd=said.maybe("budget_usd", said.number),
        spent_usd=said.maybe("spent_usd", said.number), money_left_s=said.maybe("money_left_s", said.number),
    )  # fmt: skip
