"""What the ledger says of every pod that was ever asked for: one Launch each, from intent to proof of its end.

The lines are facts in the order they were learnt, and `fold` is the only reader of them: kernels, terminals and the
keeper come to the same conclusion from the same file. A row is never closed by an assumption: `ended` needs the
provider to have said absent twice, GAP_S apart, and `refused` that it certainly created nothing.

Subject of each line is the launch's id, which is also the pod's. Every `usd_per_hour` here has the disk in it, which
providers bill beside it (`price` adds it). Lines whose distance counts have `steady` and `boot`. Verbs and details:

    rent.ask        the intent, on disk before the provider is called: name, order, provider, gpu, gpu_count, cloud,
                    usd_per_hour, disk_usd_per_hour, stopped_usd_per_hour, policy fields, model, notebook, simulated,
                    lag_s: how late its provider's listings may be, key: whose account,
                    wish: all that was asked, so that the same can be rented again
    rent.refused    why: certainly nothing was created
    rent.unclear    why: it may have been created, and its order is not sent again or later: the answer was lost, or
                    whoever asked for it is gone
    rent.live       rental: the provider's id of it, usd_per_hour as billed. The first one counts
    rent.extra      rental: one more pod of the same order, which nobody wants and which has to end
    rent.state      state, usd_per_hour: it was seen to change
    rent.policy     policy fields, serial: what ends it, changed by a person
    rent.name       name: it is called that here now
    rent.model      model: it serves that one, too, which its money is then counted for
    rent.armed      the switch on the pod said that it is armed; key: the pod's own host key was confirmed
    rent.ending     why, brake: its end was asked for; it counts as billing until it is proven gone
    rent.absent     the provider said that it knows no such pod
    rent.present    rental: it was seen again after that; a closed row opens again, and the pod has to end
    rent.key        key: the account of another key has it too (`Provider.identity`), so that one may judge as well
    rent.bill       usd: what the provider billed for it so far
    rent.ended      the row is closed; without that proof before it the line says nothing. why: what may have ended it
                    where nobody here had asked for it
"""

from __future__ import annotations

import secrets as random
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from podlab.ledger import Entry, Ledger
from podlab.renting import Policy, Rental, RentalState

GAP_S = 60.0
"""Between the two times that a provider has to say absent."""
LEAST_GAP_S = 2.0
LAG_S = 120.0
"""How long a new pod may be missing from a provider's listing, where the provider does not say."""


class Phase(StrEnum):
    """How far a launch is. All but `ended` and `refused` may cost money."""

    ASKED = "asked"
    """The intent is written. Whether there is a pod is not known: the answer is under way, or was lost."""
    LIVE = "live"
    ENDING = "ending"
    """Its end was asked for, and is not proven yet."""
    ENDED = "ended"
    REFUSED = "refused"


OPEN = frozenset({Phase.ASKED, Phase.LIVE, Phase.ENDING})


@dataclass(frozen=True)
class Moment:
    """A time by the wall clock, and by the steady clock of a boot where that was noted."""

    at: float
    steady: float | None = None
    boot: str = ""

    @classmethod
    def of(cls, at: float, told: Mapping[str, str]) -> Moment:
        """From the details of a line."""
        return cls(at, _number(told, "steady"), told.get("boot", ""))

    def since(self, earlier: Moment) -> float:
        """Seconds from an earlier one: by the steady clock within a boot, which nobody can set; else by the other."""
        if self.steady is not None and earlier.steady is not None and self.boot == earlier.boot:
            return self.steady - earlier.steady
        return self.at - earlier.at


@dataclass(frozen=True)
class Span:
    """A time in which a pod was in one state at one price. `ends_at` None: it lasts."""

    state: RentalState
    usd_per_hour: float
    begins_at: float
    ends_at: float | None = None

    def usd(self, now: float) -> float:
        """What it has cost up to `now`."""
        ends_at = now if self.ends_at is None else min(self.ends_at, now)
        return max(0.0, ends_at - self.begins_at) / 3600 * self.usd_per_hour


@dataclass(frozen=True)
class Launch:
    """One pod that was asked for, as the ledger knows it."""

    id: str
    name: str
    """What the person calls it."""
    order_name: str
    """Its unique name at the provider."""
    provider: str
    asked_at: float
    phase: Phase = Phase.ASKED
    gpu: str = ""
    gpu_count: int = 1
    cloud: str = ""
    usd_per_hour: float = 0.0
    """While it runs, its disk included: as quoted, then as the provider bills."""
    agreed_usd_per_hour: float = 0.0
    """What a person said yes to, its disk included; what is billed may not rise above it."""
    disk_usd_per_hour: float = 0.0
    """Its disk alone while it runs, part of the two above."""
    stopped_usd_per_hour: float = 0.0
    """While it is stopped: its disk."""
    policy: Policy = field(default_factory=Policy)
    policy_serial: int = 0
    rental_id: str | None = None
    extra_ids: tuple[str, ...] = ()
    """Further pods that came of the same order. The row is open until they are gone as well."""
    why: str = ""
    """Why it was refused, is unclear, or has to end."""
    brake: str = ""
    """Who asked for its end: "person", "kernel", "keeper", "pod", "create"."""
    unclear: Moment | None = None
    """Since when its order cannot be sent any more, while nobody knows what came of it."""
    live_at: float | None = None
    armed_at: float | None = None
    ending_at: float | None = None
    absent_at: tuple[float, ...] = ()
    asked: Moment = Moment(0.0)
    seen: Moment | None = None
    """When the provider's id of it was learnt."""
    absent: tuple[Moment, ...] = ()
    """`absent_at` by both clocks."""
    ended_at: float | None = None
    billed_usd: float | None = None
    """What the provider billed for it, as last read; None until it said so."""
    billed_at: float | None = None
    """When that was read."""
    spans: tuple[Span, ...] = ()
    model: str = ""
    notebook: str = ""
    simulated: bool = False
    lag_s: float = LAG_S
    """How long its provider may leave a new pod out of its listings."""
    keys: tuple[str, ...] = ()
    """Identities of keys that are known to be of the account it was rented with."""
    wish: str = ""
    """What was asked, as `rent_wish.wish_from` reads it."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Every pod at the provider that is known to have come of it."""
        return (*([self.rental_id] if self.rental_id else []), *self.extra_ids)

    @property
    def is_open(self) -> bool:
        """Whether it may cost money."""
        return self.phase in OPEN

    @property
    def is_stopped(self) -> bool:
        """Whether only its disk was left when its provider was heard last."""
        return bool(self.spans) and self.spans[-1].state is RentalState.STOPPED

    @property
    def was_stopped(self) -> bool:
        """Whether it had an earlier start than the one its provider tells."""
        return any(span.state is RentalState.STOPPED for span in self.spans)

    def usd(self, now: float) -> float:
        """What it has cost up to `now` by our own clock and its prices: an estimate until the provider's bill."""
        return sum(span.usd(now) for span in self.spans)

    @property
    def gap_s(self) -> float:
        """How far apart the provider has to say absent twice: less where its listings are never late."""
        return min(GAP_S, max(LEAST_GAP_S, self.lag_s))

    def is_proven_absent(self) -> bool:
        """Whether the provider said absent twice, far enough apart."""
        return len(self.absent) > 1 and self.absent[-1].since(self.absent[0]) >= self.gap_s


def new_id() -> str:
    """The id of a launch that nobody else has."""
    return random.token_hex(6)


def policy_fields(policy: Policy) -> dict[str, str]:
    """A policy as the details of a ledger line."""
    fields = {"deadline_at": policy.deadline_at, "budget_usd": policy.budget_usd, "idle_s": policy.idle_s,
              "lease_s": policy.lease_s}  # fmt: skip
    return {name: "" if value is None else repr(float(value)) for name, value in fields.items()}


def price(launch: Launch, rental: Rental) -> float | None:
    """What a pod costs an hour now, its disk included; None where the provider does not say.

    A stopped pod's is what was told at its order: providers were seen to quote the running price of stopped pods.
    """
    if rental.state is RentalState.STOPPED:
        return launch.stopped_usd_per_hour
    return None if rental.usd_per_hour is None else rental.usd_per_hour + launch.disk_usd_per_hour


def all_launches(ledger: Ledger) -> tuple[Launch, ...]:
    """Every launch of the ledger, oldest first. Raises StateDamaged when it cannot be trusted."""
    global _last
    entries = ledger.entries()
    known = _folded.get(ledger)
    if known is None and _last.count and len(entries) >= _last.count and entries[_last.count - 1] is _last.last:
        known = _last  # the same file, read by another ledger of this process
    # Lines never change: where the last one that was taken in stands where it stood, only the new ones are.
    if known is None or len(entries) < known.count or (known.count and entries[known.count - 1] != known.last):
        known = _Folded(0, None, {})
    launches = dict(known.launches)
    _take_in(launches, entries[known.count :])
    _folded[ledger] = _last = _Folded(len(entries), entries[-1] if entries else None, launches)
    return tuple(launches.values())


@dataclass(frozen=True)
class _Folded:
    """What the first `count` lines of a ledger say."""

    count: int
    last: Entry | None
    launches: dict[str, Launch]


_last = _Folded(0, None, {})
_folded: weakref.WeakKeyDictionary[Ledger, _Folded] = weakref.WeakKeyDictionary()


def open_launches(ledger: Ledger) -> tuple[Launch, ...]:
    """Those that may cost money."""
    return tuple(launch for launch in all_launches(ledger) if launch.is_open)


def find(ledger: Ledger, launch_id: str) -> Launch | None:
    """The launch of that id."""
    return next((launch for launch in all_launches(ledger) if launch.id == launch_id), None)


def serves(ledger: Ledger, launch_id: str, model: str) -> None:
    """Note that a rented pod serves a model, for the bill. Nothing is written for what is not rented, or was noted.

    Raises StateDamaged."""
    launch = find(ledger, launch_id)
    if launch is not None and model not in launch.model.split(", "):
        ledger.append("rent.model", launch_id, model=model)


def renamed(ledger: Ledger, launch_id: str, name: str) -> None:
    """Note what a rented pod is called here now. Nothing is written for what is not rented. Raises StateDamaged."""
    launch = find(ledger, launch_id)
    if launch is not None and launch.name != name:
        ledger.append("rent.name", launch_id, name=name)


def fold(entries: Iterable[Entry]) -> tuple[Launch, ...]:
    """The launches that these lines speak of. Lines of other verbs, and of launches nobody asked for, say nothing."""
    found: dict[str, Launch] = {}
    _take_in(found, entries)
    return tuple(found.values())


def _take_in(launches: dict[str, Launch], entries: Iterable[Entry]) -> None:
    for entry in entries:
        if entry.verb == "rent.ask":
            launches[entry.subject] = _asked(entry)
        elif entry.verb.startswith("rent.") and entry.subject in launches:
            launches[entry.subject] = _next(launches[entry.subject], entry)


def _asked(entry: Entry) -> Launch:
    told = entry.detail
    return Launch(
        entry.subject, told.get("name", ""), told.get("order", ""), told.get("provider", ""), entry.at,
        gpu=told.get("gpu", ""), gpu_count=int(_number(told, "gpu_count") or 1), cloud=told.get("cloud", ""),
        usd_per_hour=_number(told, "usd_per_hour") or 0.0, agreed_usd_per_hour=_number(told, "usd_per_hour") or 0.0,
        disk_usd_per_hour=_number(told, "disk_usd_per_hour") or 0.0,
        stopped_usd_per_hour=_number(told, "stopped_usd_per_hour") or 0.0, policy=_policy(told, Policy()),
        model=told.get("model", ""), notebook=told.get("notebook", ""), simulated=told.get("simulated") == "yes",
        lag_s=LAG_S if (lag_s := _number(told, "lag_s")) is None else lag_s, wish=told.get("wish", ""),
        asked=Moment.of(entry.at, told), keys=(told["key"],) if told.get("key") else (),
    )  # fmt: skip


def _next(launch: Launch, entry: Entry) -> Launch:
    told, at = entry.detail, entry.at
    match entry.verb:
        case "rent.refused":
            if launch.rental_id:  # somebody has seen it, whatever was answered
                return launch
            return replace(launch, phase=Phase.REFUSED, why=told.get("why", ""), ended_at=at, spans=())
        case "rent.unclear":
            return replace(launch, unclear=Moment.of(at, told), why=launch.why or told.get("why", ""))
        case "rent.live":
            return _live(launch, told, at)
        case "rent.extra":
            return _with_extra(launch, told.get("rental", ""))
        case "rent.state":
            return replace(launch, spans=_moved(launch, told, at))
        case "rent.key":
            return replace(launch, keys=tuple(dict.fromkeys((*launch.keys, told.get("key", "")))))
        case "rent.policy":
            serial = int(_number(told, "serial") or launch.policy_serial + 1)
            return replace(launch, policy=_policy(told, launch.policy), policy_serial=serial)
        case "rent.name":
            return replace(launch, name=told.get("name") or launch.name)
        case "rent.model":
            models = [each for each in launch.model.split(", ") if each]
            return replace(launch, model=", ".join(dict.fromkeys((*models, told.get("model", "")))))
        case "rent.armed":
            return replace(launch, armed_at=at)
        case "rent.bill":
            return replace(launch, billed_usd=_number(told, "usd"), billed_at=at)
        case "rent.ending":
            return replace(launch, phase=Phase.ENDING, why=told.get("why", ""), brake=told.get("brake", ""),
                           ending_at=launch.ending_at or at)  # fmt: skip
        case "rent.absent":
            moments = (*launch.absent, Moment.of(at, told))
            return replace(launch, absent_at=(*launch.absent_at, at), absent=moments)
        case "rent.present":
            return _present(launch, told)
        case "rent.ended":
            if not launch.is_proven_absent():  # another process saw it before this line was written
                return launch
            # It was billed no longer than until it was first missed.
            spans = _closed(launch.spans, launch.absent_at[0])
            why = told.get("why") or launch.why
            return replace(launch, phase=Phase.ENDED, ended_at=at, spans=spans, why=why)
    return launch


def _live(launch: Launch, told: dict[str, str], at: float) -> Launch:
    told_price = _number(told, "usd_per_hour")
    billed = launch.usd_per_hour if told_price is None else told_price
    rental_id = told.get("rental", "")
    if launch.rental_id not in (None, rental_id):
        return _with_extra(launch, rental_id)
    # It is billed from when it was made, which is not before it was asked for.
    spans = launch.spans or (Span(RentalState.RUNNING, billed, launch.asked_at),)
    live = replace(
        launch, rental_id=rental_id or None, usd_per_hour=billed, live_at=launch.live_at or at, spans=spans,
        seen=launch.seen or Moment.of(at, told),
    )  # fmt: skip
    if launch.phase is Phase.ASKED:
        return replace(live, phase=Phase.LIVE, absent_at=(), absent=(), why="")  # why it was unclear is over
    return _present(live, told)


def _present(launch: Launch, told: dict[str, str]) -> Launch:
    """It is there. A row that was closed opens again: it was billed all the time, and nobody waits for it any more."""
    rental_id = told.get("rental", "")
    if rental_id and rental_id not in launch.ids:
        launch = _with_extra(launch, rental_id) if launch.rental_id else replace(launch, rental_id=rental_id)
    if launch.is_open:
        return replace(launch, absent_at=(), absent=())
    spans = launch.spans or (Span(RentalState.RUNNING, launch.usd_per_hour, launch.asked_at),)
    return replace(
        launch, phase=Phase.ENDING, why="it was seen again after its row was closed", ended_at=None, absent_at=(),
        absent=(), spans=(*spans[:-1], replace(spans[-1], ends_at=None)),
    )  # fmt: skip


def _with_extra(launch: Launch, rental_id: str) -> Launch:
    if not rental_id or rental_id in launch.ids:
        return launch
    return replace(launch, extra_ids=(*launch.extra_ids, rental_id))


def _moved(launch: Launch, told: dict[str, str], at: float) -> tuple[Span, ...]:
    words = set(RentalState)
    state = RentalState(told["state"]) if told.get("state") in words else RentalState.UNKNOWN
    price = _number(told, "usd_per_hour")
    if price is None:
        price = launch.stopped_usd_per_hour if state is RentalState.STOPPED else launch.usd_per_hour
    last = launch.spans[-1] if launch.spans else None
    if last is not None and (last.state, last.usd_per_hour, last.ends_at) == (state, price, None):
        return launch.spans
    before = _closed(launch.spans, at)
    # A clock that was set back between two lines makes no time count twice.
    begins_at = max([at, *(span.ends_at for span in before[-1:] if span.ends_at is not None)])
    return (*before, Span(state, price, begins_at))


def _closed(spans: Sequence[Span], at: float) -> tuple[Span, ...]:
    if not spans or spans[-1].ends_at is not None:
        return tuple(spans)
    return (*spans[:-1], replace(spans[-1], ends_at=max(at, spans[-1].begins_at)))


def _policy(told: dict[str, str], otherwise: Policy) -> Policy:
    if "lease_s" not in told:
        return otherwise
    return Policy(
        _number(told, "deadline_at"), _number(told, "budget_usd"), _number(told, "idle_s"),
        _number(told, "lease_s") or otherwise.lease_s,
    )  # fmt: skip


def _number(told: Mapping[str, str], name: str) -> float | None:
    try:
        return float(told[name]) if told.get(name) else None
    except ValueError:
        return None
