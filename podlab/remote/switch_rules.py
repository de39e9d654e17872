"""What ends a pod, and how long it still has: pure figures on the switch's own clock, and the file they survive in.

Standard library only, Python 3.8 or newer. The time of day is never asked: whoever sets a deadline says how many
seconds are left. A policy has a serial; an older one never takes the place of a newer one, and what one serial said
first stays said, so that a clock that jumps where the policy comes from moves nothing here. The price may change at
any time. Money is counted from the pod's start at that price, and what was spent before is told.

A container whose first process ends is started again by the provider, and that is no new start of the pod: nothing
begins anew, for else a container that breaks off again and again would be billed for ever. So a state has a life (of
the container) and a run (of the pod: when its provider last started it). What an earlier life of the same run kept
goes on; where nothing was kept, deadline, money and grace count from the pod's start as its provider tells it. A pod
that was stopped and started is another run, and begins anew.
"""

from __future__ import annotations

import os

from podlab.remote.machine import Fault, private_folder, read_json, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from podlab.remote.machine import Json

NOT_TOLD = -1
"""The serial of what the start command said: any word from outside goes before it."""
LONGEST_S = 10 * 365 * 86400.0
MOST_USD = 1e9
LEASE_S = 600.0
SPARED_S = 300.0
"""What a container has to hear a first word, where its pod has had its time already or its lease is over."""
FILE = "state.json"
NUMBERS = ("started_at", "lease_at", "busy_at", "beats", "spared")


def number(told: Json, name: str, low: float, high: float) -> float | None:
    """A figure of a request, None when it has none. Raises Fault for what is no figure or out of bounds."""
    value = told.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Fault("bad_request", f"{name} is {value!r:.40}")
    return float(value)


class Rules:
    """One policy, as it holds here. Times are by the switch's clock; None: that rule is off."""

    def __init__(self, told: Json, now: float, up_s: float) -> None:
        """`told` has serial, lease_s, deadline_left_s, budget_usd, spent_usd, usd_per_hour, idle_s. Raises Fault."""
        serial = told.get("serial", NOT_TOLD)
        if isinstance(serial, bool) or not isinstance(serial, int) or not NOT_TOLD <= serial < 2**53:
            raise Fault("bad_request", f"serial is {serial!r:.40}")
        self.serial: int = serial
        self.lease_s = number(told, "lease_s", 1.0, LONGEST_S) or LEASE_S
        left_s = number(told, "deadline_left_s", -LONGEST_S, LONGEST_S)
        self.deadline_at = None if left_s is None else now + left_s
        self.budget_usd = number(told, "budget_usd", 0.0, MOST_USD)
        self.idle_s = number(told, "idle_s", 1.0, LONGEST_S)
        self.usd_per_hour = number(told, "usd_per_hour", 0.0, MOST_USD) or 0.0
        spent = number(told, "spent_usd", 0.0, MOST_USD) or 0.0
        self.before_usd = max(0.0, spent - up_s * self.usd_per_hour / 3600)
        """Spent before this start. Never less than nothing: what this start has cost is counted here."""

    def spent_usd(self, up_s: float) -> float:
        """What the pod has cost."""
        return self.before_usd + up_s * self.usd_per_hour / 3600

    def money_left_s(self, up_s: float) -> float | None:
        """How long the money lasts; None without a budget, or where nothing is charged and some is left."""
        if self.budget_usd is None:
            return None
        left = self.budget_usd - self.spent_usd(up_s)
        if left <= 0:
            return 0.0
        return left / self.usd_per_hour * 3600 if self.usd_per_hour else None


class State:
    """What holds in this run of the pod: the rules, the lease, and since when nothing was done here."""

    def __init__(self, launch: str, life: str, started_at: float, told: Json, now: float, grace_s: float) -> None:
        self.launch, self.life, self.started_at = launch, life, started_at
        self.run = ""
        """When the pod was started, in its provider's words; "" as long as it is not known."""
        self.spared = 0
        """How many lives since the last word were given time although the lease was over: not more than one."""
        # The seconds of the start command count from the start: it was written before that.
        self.rules = Rules(dict(told, serial=NOT_TOLD), started_at, 0.0)
        self.lease_at = started_at + grace_s
        self.busy_at = started_at
        self.beats = 0

    def up_s(self, now: float) -> float:
        """How long the pod runs since its start."""
        return max(0.0, now - self.started_at)

    def hear(self, told: Json, now: float) -> bool:
        """Word from outside: the lease begins anew. Whether it brought a policy that takes the place of ours."""
        rules = Rules(told, now, self.up_s(now))
        newer = rules.serial > self.rules.serial
        if newer:
            self.rules = rules
            self.busy_at = now  # somebody decided something about this pod just now
        elif rules.serial == self.rules.serial and told.get("usd_per_hour") is not None:
            self.rules.usd_per_hour = rules.usd_per_hour
        self.lease_at = now + self.rules.lease_s
        self.beats += 1
        self.spared = 0
        return newer

    def belong(self, run: str, run_s: float | None, earlier: Json, now: float, grace_s: float) -> None:
        """The provider says since when the pod runs: in its words, and `run_s` ago. `earlier` is what another life kept
        ({}: nothing): of the same run it goes on, else what this life knows is counted from the pod's start. Once."""
        if self.run or not run:
            return
        self.run = run
        if earlier and earlier["run"] == run and not self.beats:
            self._go_on(earlier, now)
        elif run_s is not None:
            self._be_older(self.started_at - (now - run_s), now, grace_s)

    def _go_on(self, earlier: Json, now: float) -> None:
        """As the earlier life would have."""
        self.take(earlier)
        lease_at = now + min(SPARED_S, self.rules.lease_s)
        if self.beats and not self.spared and self.lease_at < lease_at:
            # The container may have been away for as long: whoever speaks to it needs a moment to find it again.
            self.lease_at, self.spared = lease_at, 1

    def _be_older(self, by_s: float, now: float, grace_s: float) -> None:
        """The pod runs for longer than its container."""
        if by_s <= 0:
            return
        rules = self.rules
        self.started_at -= by_s
        if rules.serial != NOT_TOLD:  # told to this life, and exactly
            rules.before_usd = max(0.0, rules.before_usd - by_s * rules.usd_per_hour / 3600)
        elif rules.deadline_at is not None:
            rules.deadline_at -= by_s
        if not self.beats:
            # A grace more than the grace, for an image may be on its way for as long before its container begins.
            self.lease_at = min(self.lease_at, max(self.started_at + 2 * grace_s, now + min(SPARED_S, grace_s)))

    def idle_for_s(self, now: float) -> float:
        """For how long nothing was done."""
        return max(0.0, now - self.busy_at)

    def reasons(self, now: float, *, seen: bool) -> list[tuple[str, str]]:
        """Why the pod has to end, as (rule, sentence). `seen`: what it does was looked at just now, so that idle means
        something."""
        rules, found = self.rules, []
        money_s = rules.money_left_s(self.up_s(now))
        if now >= self.lease_at:
            what = f"no word for {rules.lease_s:.0f} s" if self.beats else "no word since it started"
            found.append(("lease", what))
        if rules.deadline_at is not None and now >= rules.deadline_at:
            found.append(("deadline", "its time is over"))
        if money_s is not None and money_s <= 0:
            found.append(("money", f"its {rules.budget_usd:g} USD are spent"))
        if rules.idle_s is not None and seen and self.idle_for_s(now) >= rules.idle_s:
            found.append(("idle", f"nothing was done for {self.idle_for_s(now):.0f} s"))
        return found

    def told(self, now: float) -> Json:
        """All of it, for whoever asks. Seconds are what is left."""
        rules = self.rules
        return {
            "launch": self.launch, "life": self.life, "serial": rules.serial, "lease_s": rules.lease_s,
            "lease_left_s": round(self.lease_at - now, 1),
            "deadline_left_s": None if rules.deadline_at is None else round(rules.deadline_at - now, 1),
            "budget_usd": rules.budget_usd, "spent_usd": round(rules.spent_usd(self.up_s(now)), 6),
            "money_left_s": rules.money_left_s(self.up_s(now)), "usd_per_hour": rules.usd_per_hour,
            "idle_s": rules.idle_s, "idle_for_s": round(self.idle_for_s(now), 1), "up_s": round(self.up_s(now), 1),
        }  # fmt: skip

    def kept(self) -> Json:
        """All of it, for a file."""
        return {**vars(self), "v": 1, "rules": vars(self.rules)}

    def take(self, kept: Json) -> None:
        """Go on from what `read` or `read_earlier` gave."""
        vars(self.rules).update({name: kept["rules"][name] for name in vars(self.rules)})
        for name in (*NUMBERS, "run"):
            setattr(self, name, kept[name])


# ------------------------------------------------------------------------------------------------ on disk


def save(folders: list[str], kept: Json) -> str:
    """Write a state into the first of `folders` that takes it; "" or why none does."""
    problem = ""
    for folder in folders:
        try:
            private_folder(folder)
            write_json(os.path.join(folder, FILE), kept)
            return ""
        except (OSError, Fault) as error:
            problem = problem or f"the switch cannot keep its state: {error}"[:300]
    return problem


def read(folders: list[str], launch: str, life: str) -> Json:
    """What was kept of this launch and life, {} when nothing was.

    Another life's is nothing: a deadline that lies on a volume would end a resumed pod at once.
    """
    return _newest(kept for kept in map(_read_file, folders) if kept.get("life") == life and kept["launch"] == launch)


def read_earlier(folders: list[str], launch: str, life: str) -> Json:
    """What another life of this launch kept on the same machine since it was started, as its clock goes on; {} when
    nothing was. It counts only for the same run (`State.belong`)."""
    return _newest(
        kept
        for kept in map(_read_file, folders)
        if kept and kept["launch"] == launch and kept["run"] and kept["life"] != life
        and kept["life"].partition(".")[0] == life.partition(".")[0]
    )  # fmt: skip


def _newest(found: Iterable[Json]) -> Json:
    return max(found, key=lambda kept: float(kept["lease_at"]), default={})


def _read_file(folder: str) -> Json:
    try:
        kept = read_json(os.path.join(folder, FILE)) or {}
    except (OSError, ValueError):
        return {}
    rules = kept.get("rules")
    if not all(is_figure(kept.get(name)) for name in NUMBERS) or not isinstance(rules, dict):
        return {}
    if set(rules) != set(vars(Rules({}, 0.0, 0.0))):
        return {}
    if not all(isinstance(kept.get(name), str) for name in ("launch", "life", "run")):
        return {}
    needed = ("serial", "lease_s", "usd_per_hour", "before_usd")
    fine = all(is_figure(value) or (value is None and name not in needed) for name, value in rules.items())
    return kept if fine else {}


def is_figure(value: object) -> bool:
    """Whether it is a number and not a truth."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
