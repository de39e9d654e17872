"""One round of tending to rented pods: look, tell them that somebody is there, end what has to end, ask for the bills.

The keeper and the kernel run the same rounds; a lease (`tending_file`) lets one of them talk at a time. A round never
raises for what a provider, a pod or a file does: it notes it, and the next round tries again. Without a readable
ledger what is known of the pods is still held against the rules, and what has to end is ended.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from podlab.errors import BadSecret, KeyRefused, PodlabError, StateDamaged, Unreachable
from podlab.lab import bills, brakes, ending, money
from podlab.lab.brakes import Rules, Seen, Verdict
from podlab.lab.fanout import ask_all
from podlab.lab.heartbeat import difference
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.salvage import as_listed, salvage
from podlab.lab.tending_file import Notes, Owner, PodNote, ProviderNote, TendingFile
from podlab.lab.tending_words import without_figures
from podlab.lab.tries import Tries
from podlab.ledger import Entry
from podlab.renting import BILLING, Armed, Rental, RentalState

ROUND_S = 30.0
SOON_S = 10.0
"""Between rounds while a pod is being started or ended."""
STANDBY_S = 5.0
"""Between looks at whether the other process still does it."""
BEATS_A_LEASE = 5
BEAT_DEADLINE_S, LEAST_BEAT_S = 20.0, 5.0
COMES_BACK_S = 900.0
"""So long after its end a pod is looked for: listings were seen to show again what they had lost."""
STUCK_S = 900.0
"""A pod that has to end and is still there after this is an alarm."""

_log = logging.getLogger(__name__)


class _Lost(Exception):  # it never leaves this file
    """Another process tends now."""


@dataclass
class World:
    """What a process that tends has beside the market, and what it remembers from round to round.

    `beat` renews a pod's lease at the time that its clocks tell, and says what its switch says; it may block, and raise
    any PodlabError. `moved` is told of each pod's address. `beat_deadline_s` None beats one pod after the other, on the
    calling thread.
    """

    file: TendingFile
    owner: Owner
    beat: Callable[[Launch, Rental, float], Armed]
    caps: Callable[[], Caps]
    moved: Callable[[Launch, Rental], None] = lambda launch, rental: None
    rules: Rules = field(default_factory=Rules)
    round_s: float = ROUND_S
    beat_deadline_s: float | None = BEAT_DEADLINE_S
    unwritten: Notes | None = None
    """What the last round found, where no file could be written."""
    entries: tuple[Entry, ...] = ()
    """The ledger's lines as they were when it could last be read."""
    beating: set[str] = field(default_factory=set)
    known_caps: Caps | None = None
    """As they were when the settings could last be read."""
    answers: dict[str, Literal["ok", "failed", "refused"]] = field(default_factory=dict)
    """How each provider answered when it was last asked for its pods; refused: it does not take the key."""

    def __post_init__(self) -> None:
        self.tries = Tries(self.file.steady)


@dataclass(frozen=True)
class Tended:
    """What a round came to. `standby`: another process does it. `again_s`: when the next round is due."""

    standby: bool
    again_s: float
    open_launches: tuple[Launch, ...] = ()
    notes: Notes = field(default_factory=Notes)
    watches: bool = True
    """Whether there is anything left to tend to."""


def tend(market: Market, world: World) -> Tended:
    """One round. Blocks for as long as providers and pods take to answer, each within its deadline."""
    if _is_ours(world):
        try:
            return _Round(market, world).run()
        except _Lost:
            _log.warning("another process tends the rented pods now")
    world.unwritten = None  # what the other one writes is newer
    return Tended(True, min(world.round_s, STANDBY_S), notes=world.file.notes())


def _is_ours(world: World) -> bool:
    """Have the lease, or renew it; False while another process has it.

    Where it cannot be written it is ours unless another one is known to have it: a full disk makes no pod immortal,
    and what two do then is safe to be done twice.
    """
    try:
        return world.file.take(world.owner)
    except StateDamaged:
        other = world.file.owner()
        return other is None or other.token == world.owner.token


class _Round:
    def __init__(self, market: Market, world: World) -> None:
        self._market = market
        self._world = world
        self._before = world.unwritten or world.file.notes()
        self._alarms: list[str] = []
        self._warnings: list[str] = []
        self._pods: dict[str, PodNote] = {}
        self._providers = {note.name: note for note in self._before.providers}
        self._damaged = False
        self._caps = Caps()
        self._launches: tuple[Launch, ...] = ()

    def run(self) -> Tended:
        self._launches = self._read()
        self._caps = self._caps_now()
        living = [launch for launch in self._launches if launch.is_open]
        ended = [launch for launch in self._launches if self._may_come_back(launch)]
        listed = {name: self._listed(name) for name in sorted({launch.provider for launch in (*living, *ended)})}
        living += [launch for launch in ended if self._came_back(launch, listed[launch.provider])]
        known: dict[str, Launch] = {}
        seen: dict[str, Rental | None] = {}
        to_beat: list[tuple[Launch, Rental]] = []
        for launch in living:
            with self._held_together(launch):
                known[launch.id] = launch
                answer = listed[launch.provider]
                rental = seen[launch.id] = self._followed(launch, answer, known)
                self._note(launch.id, known[launch.id])
                listening = self._listening(known[launch.id], rental)
                if not self._ended(known[launch.id], rental, asked=listening is None) and listening is not None:
                    to_beat.append((known[launch.id], listening))
        for (launch, _), armed in zip(to_beat, self._beat(to_beat), strict=True):
            with self._held_together(launch):
                self._heard(launch, armed)
                self._ended(launch, seen[launch.id], armed if isinstance(armed, Armed) else None)
        self._ask_for_bills()
        return self._finish([known.get(launch.id, launch) for launch in living])

    # What is known

    def _read(self) -> tuple[Launch, ...]:
        try:
            launches = all_launches(self._market.ledger)
            self._world.entries = tuple(self._market.ledger.entries())
            return launches
        except StateDamaged as error:
            self._damaged = True
            self._alarms.append(f"{error.message} {error.hint}".strip())
            return salvage(self._world.entries, self._market.ledger.salvaged())

    def _caps_now(self) -> Caps:
        try:
            self._world.known_caps = self._world.caps()
        except Exception as error:  # noqa: BLE001  # a setting that cannot be read must not stop what ends pods
            before = "not known" if self._world.known_caps is None else "those of before"
            said = error.message if isinstance(error, PodlabError) else f"{type(error).__name__}: {error}"
            self._alarms.append(f"The caps on money are {before}: {said}")
        return self._world.known_caps or Caps()

    def _listed(self, name: str) -> ending.Listing | None:
        """All pods of a provider; None when it did not answer, or is to be left alone."""
        if not self._world.tries.is_due(f"list {name}"):
            return None
        self._ours()
        note = self._providers.get(name, ProviderNote(name))
        try:
            shown = ending.listing(self._market, name)
        except PodlabError as error:
            self._world.tries.failed(f"list {name}", error)
            self._world.answers[name] = "refused" if isinstance(error, KeyRefused) else "failed"
            self._providers[name] = replace(note, problem=error.message)
            self._say(
                f"{name} does not say which pods there are: {error.message}",
                alarm=isinstance(error, (KeyRefused, BadSecret)),
            )
            return None
        except Exception as error:  # noqa: BLE001  # a package's bug must not end the brake
            _log.exception("%s could not be listed", name)
            self._world.tries.failed(f"list {name}", error)
            self._world.answers[name] = "failed"
            self._providers[name] = replace(note, problem=f"{type(error).__name__}")
            return None
        self._world.tries.done(f"list {name}")
        self._world.answers[name] = "ok"
        self._providers[name] = replace(
            note, answered_at=self._market.now(), identity=shown.provider.identity, problem=""
        )  # fmt: skip
        return shown

    def _followed(self, launch: Launch, answer: ending.Listing | None, known: dict[str, Launch]) -> Rental | None:
        """Write down what a listing says of a pod; the pod itself, if it is there."""
        if answer is None:
            if launch.phase is Phase.ENDING and self._world.tries.is_due(f"end {launch.id}"):
                self._ours()
                self._push(launch)
            return None
        rentals = answer.rentals
        if not self._damaged:
            self._ours()
            with self._held_together(launch):  # whatever goes wrong, it is held against the rules all the same
                known[launch.id] = ending.look(self._market, launch, answer)
            launch = known[launch.id]
        elif launch.phase is Phase.ENDING:
            self._push(launch)
        known[launch.id] = launch = as_listed(launch, rentals)
        if not launch.is_open:
            return None
        mine = [each for each in rentals if each.id == launch.rental_id] or [
            each for each in rentals if each.name == launch.order_name and not launch.rental_id
        ]
        if not mine or mine[0].state is RentalState.TERMINATED:
            return None
        if launch.phase is Phase.LIVE and mine[0].ssh_host:
            with self._held_together(launch):
                try:
                    self._world.moved(launch, mine[0])
                except PodlabError as error:  # its name is taken, or the file is damaged: it is tended all the same
                    self._say(f"{launch.name} cannot be entered into the list of pods: {error.message}")
        return mine[0]

    def _listening(self, launch: Launch, rental: Rental | None) -> Rental | None:
        """The pod as it can be told that somebody is there; None when there is nobody to tell, or not yet.

        Where its provider did not answer, or a listing lacks it, it is told where it was last.
        """
        note = self._note(launch.id, launch)
        if launch.phase is not Phase.LIVE:
            return None
        if rental is None and note.ssh_host and launch.rental_id:
            return Rental(
                launch.rental_id, launch.order_name, RentalState.RUNNING, ssh_host=note.ssh_host, ssh_port=note.ssh_port
            )
        if rental is None or rental.state is not RentalState.RUNNING:
            return None
        self._pods[launch.id] = replace(note, ssh_host=rental.ssh_host or "", ssh_port=rental.ssh_port)
        return rental

    def _may_come_back(self, launch: Launch) -> bool:
        ended_at = launch.ended_at
        return not launch.is_open and ended_at is not None and 0 <= self._market.now() - ended_at < COMES_BACK_S

    def _came_back(self, launch: Launch, answer: ending.Listing | None) -> bool:
        """Whether a listing shows what was proven gone, or refused."""
        return answer is not None and any(
            (rental.id in launch.ids or rental.name == launch.order_name) and rental.state in BILLING
            for rental in answer.rentals
        )

    # What is done

    def _ended(self, launch: Launch, rental: Rental | None, armed: Armed | None = None, *, asked: bool = True) -> bool:
        """Hold a pod against the rules; whether it has to end, which it is then told."""
        note = self._note(launch.id, launch)
        verdict = brakes.decide(self._seen(launch, note, rental, armed), self._world.rules, asked=asked)
        why = verdict.end or (note.ending if launch.phase is Phase.LIVE else "")
        self._pods[launch.id] = replace(note, warnings=verdict.warnings, ending=why)
        if why and launch.phase is Phase.LIVE and self._world.tries.is_due(f"end {launch.id}"):
            self._end(launch, replace(verdict, end=why))
        return bool(why) or launch.phase is not Phase.LIVE

    def _seen(self, launch: Launch, note: PodNote, rental: Rental | None, armed: Armed | None) -> Seen:
        clocks = brakes.clocks(note.watched, launch, self._market.now(), rental)
        steady = self._world.file.steady()
        return Seen(
            launch, clocks, rental, armed,
            silent_s=steady - note.tried_since if note.tried_since is not None else 0.0,
            unarmed_s=steady - note.unarmed_since if note.unarmed_since is not None else 0.0,
            day_cap=money.day_used_up(self._same_kind(launch), self._caps, self._latest()),
            total_cap=money.total_used_up(self._same_kind(launch), self._caps, self._latest()),
        )  # fmt: skip

    def _same_kind(self, launch: Launch) -> Iterator[Launch]:
        """Every launch of real money, or of pretended, with its time as its clocks tell it."""
        same = money.of_kind(self._launches, simulated=launch.simulated)
        return (money.up_to(each, self._believed(each)) for each in same)

    def _believed(self, launch: Launch, rental: Rental | None = None) -> float:
        """The time, as a pod's clocks tell it."""
        note = self._pods.get(launch.id)
        if note is None:
            return self._market.now()
        return launch.asked_at + brakes.clocks(note.watched, launch, self._market.now(), rental).age_s()

    def _latest(self) -> float:
        return max([self._market.now(), *(self._believed(each) for each in self._launches if each.is_open)])

    def _end(self, launch: Launch, verdict: Verdict) -> None:
        self._ours()
        _log.warning("ending %s (%s): %s", launch.name, launch.rental_id, verdict.end)
        try:
            ending.end(self._market, launch, why=verdict.end, brake=self._world.owner.who)
        except StateDamaged as error:  # it was asked to end all the same
            self._say(f"{launch.name} has to end, which the ledger cannot be told: {error.message}", alarm=True)
            self._world.tries.failed(f"end {launch.id}", error)

    def _push(self, launch: Launch) -> None:
        if problem := ending.push(self._market, launch):
            self._world.tries.failed(f"end {launch.id}", None)
            self._say(f"{launch.name} does not end: {problem}")

    def _beat(self, pods: Sequence[tuple[Launch, Rental]]) -> list[Armed | PodlabError]:
        if pods:
            self._ours()
        deadline_s = self._world.beat_deadline_s
        if deadline_s is not None:
            # One that does not answer must not make another one late to its end.
            deadline_s = max(LEAST_BEAT_S, min([deadline_s, *map(self._left_s, self._launches)]))
            return ask_all(pods, lambda pod: self._one_beat(*pod), deadline_s=deadline_s)
        answers: list[Armed | PodlabError] = []
        for pod in pods:
            try:
                answers.append(self._one_beat(*pod))
            except PodlabError as error:
                answers.append(error)
        return answers

    def _one_beat(self, launch: Launch, rental: Rental) -> Armed:
        """Tell a pod that somebody is there. One that still hangs from the last round is not asked again."""
        if not rental.ssh_host or rental.ssh_port is None:
            raise Unreachable(f"{launch.name} has no address yet.")
        if launch.id in self._world.beating:
            raise Unreachable(f"{launch.name} does not answer.")
        self._world.beating.add(launch.id)
        try:
            return self._world.beat(launch, rental, self._believed(launch, rental))
        except PodlabError:
            raise
        except Exception as error:
            _log.exception("%s could not be told that somebody is there", launch.name)
            raise Unreachable(f"{launch.name} was not asked: {type(error).__name__}.") from error
        finally:
            self._world.beating.discard(launch.id)

    def _heard(self, launch: Launch, answer: Armed | PodlabError) -> None:
        note, steady = self._note(launch.id, launch), self._world.file.steady()
        unarmed_since = steady if note.unarmed_since is None else note.unarmed_since
        if isinstance(answer, PodlabError):
            since = steady if note.tried_since is None else note.tried_since
            unarmed = None if brakes.is_armed(launch) and note.unarmed_since is None else unarmed_since
            note = replace(note, tried_since=since, problem=answer.message, unarmed_since=unarmed)
        else:
            problem = difference(answer, launch, now=self._believed(launch)) if answer.armed else answer.detail
            note = replace(
                note, armed=answer, heard_at=steady, heard_wall_at=self._market.now(), tried_since=None,
                problem=problem, unarmed_since=None if answer.armed else unarmed_since,
            )  # fmt: skip
        self._pods[launch.id] = note
        if isinstance(answer, Armed) and answer.armed and not brakes.is_armed(launch) and not self._damaged:
            self._ours()
            with self._held_together(launch):  # what it said counts, also where it cannot be written down
                self._market.ledger.append("rent.armed", launch.id)

    # Bills

    def _ask_for_bills(self) -> None:
        now = self._market.now()
        wanted = bills.wanted(self._launches, now)
        for name in sorted({launch.provider for launch in wanted}):
            note = self._providers.get(name, ProviderNote(name))
            if note.bills_at is not None and 0 <= now - note.bills_at < bills.EVERY_S:
                self._alarms += note.billed
                continue
            if self._damaged or not self._world.tries.is_due(f"bill {name}"):
                continue
            self._ours()
            try:
                billed = bills.read(self._market, name, [each for each in wanted if each.provider == name])
            except Exception as error:  # noqa: BLE001  # a package's bug must not end the brake
                _log.warning("%s gives no bills: %s: %s", name, type(error).__name__, error)
                self._world.tries.failed(f"bill {name}", error)
                continue
            self._world.tries.done(f"bill {name}")
            self._alarms += billed
            self._providers[name] = replace(note, bills_at=now, billed=billed)

    # Notes

    def _note(self, launch_id: str, launch: Launch) -> PodNote:
        """What is remembered of a pod, with the clocks looked at once a round."""
        if (known := self._pods.get(launch_id)) is not None:
            return known
        file = self._world.file
        before = self._before.pod(launch_id)
        watched = brakes.look(
            before.watched if before else None, launch, self._market.now(), file.steady(), file.boot
        )  # fmt: skip
        note = replace(before, watched=watched) if before else PodNote(launch_id, watched, file.boot)
        if note.boot != file.boot:  # readings of another boot's clock say nothing in this one
            note = replace(note, boot=file.boot, heard_at=None, tried_since=None, unarmed_since=None)
        if brakes.is_stopped(Seen(launch, brakes.clocks(watched, launch, self._market.now(), None))):
            note = replace(note, tried_since=None, unarmed_since=None, armed=None)
        self._pods[launch_id] = note
        return note

    def _finish(self, living: Sequence[Launch]) -> Tended:
        now = self._market.now()
        for launch in living:
            if launch.phase is Phase.ENDING and launch.ending_at is not None and now - launch.ending_at >= STUCK_S:
                self._say(f"{launch.name} was to end and is still there: {launch.why}", alarm=True)
        for simulated in (False, True):
            same = money.of_kind(self._launches, simulated=simulated)
            self._warnings += money.cap_warnings(same, self._caps, now)
        self._warnings += [text for note in self._pods.values() for text in note.warnings]
        still = tuple(launch for launch in living if launch.is_open)
        notes = Notes(
            now, None, tuple(self._pods[launch.id] for launch in still if launch.id in self._pods),
            tuple(self._providers.values()), tuple(self._alarms), tuple(self._warnings),
        )  # fmt: skip
        said = {without_figures(text) for text in self._before.alarms + self._before.warnings}
        for text in notes.alarms + notes.warnings:
            if without_figures(text) not in said:
                _log.warning("%s", text)
        try:
            self._world.unwritten = None
            if not self._world.file.write(self._world.owner, notes):
                raise _Lost
        except StateDamaged as error:
            self._world.unwritten = notes
            _log.warning("what was found cannot be kept: %s", error)
        watched = any(self._may_come_back(launch) for launch in self._launches)
        return Tended(False, self._again_s(still), still, notes, watches=bool(still) or watched)

    def _again_s(self, living: Sequence[Launch]) -> float:
        """When the next round is due: sooner for short leases, near limits, and while something begins or ends."""
        if not living and not any(self._may_come_back(launch) for launch in self._launches):
            return bills.EVERY_S
        again_s = self._world.round_s
        for launch in living:
            again_s = min(again_s, launch.policy.lease_s / BEATS_A_LEASE)
            if launch.phase is not Phase.LIVE or not brakes.is_armed(launch):
                again_s = min(again_s, SOON_S)
            if not self._world.tries.is_due(f"end {launch.id}"):  # it was asked to end, which could not be written down
                again_s = min(again_s, SOON_S)
            else:
                again_s = min(again_s, self._left_s(launch))
        return max(1.0, again_s)

    def _left_s(self, launch: Launch) -> float:
        """How long until a limit ends a pod; infinite where none does."""
        if launch.phase is not Phase.LIVE or launch.is_stopped:
            return math.inf
        now = self._believed(launch)
        ends = money.limit(launch, now)
        return math.inf if ends is None else max(0.0, ends.at - now)

    def _say(self, text: str, *, alarm: bool = False) -> None:
        (self._alarms if alarm else self._warnings).append(text)

    # Turns and tries

    def _ours(self) -> None:
        """Renew the lease before a deed. Raises _Lost when it is another one's turn."""
        if not _is_ours(self._world):
            raise _Lost

    @contextlib.contextmanager
    def _held_together(self, launch: Launch) -> Iterator[None]:
        """What goes wrong with one pod is noted and does not keep the others from their round."""
        try:
            yield
        except PodlabError as error:
            self._say(f"{launch.name}: {error.message}", alarm=isinstance(error, StateDamaged))
            self._note(launch.id, launch)
        except _Lost:
            raise
        except Exception:  # noqa: BLE001  # a bug in one place must not end the brake
            _log.exception("%s could not be tended", launch.name)
            self._say(f"{launch.name} could not be tended: podlab logs says why.", alarm=True)
