"""tending.json: who tends the rented pods of a PODLAB_HOME, and what was found at the last round.

One process does the talking at a time, by a lease that it renews as it goes. One that slept through its lease and wakes
finds another one's name here and does nothing more. The lease runs by the steady clock of this boot, so that no clock
that is set hands it out twice; between computers that share a home it runs by the wall clock.

The file is disposable: damaged or gone, the next round writes it anew, and only the memory of how long pods were
watched is lost, which the provider's times make up for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets as random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from podlab.durable import replace_file, translated
from podlab.errors import StateDamaged
from podlab.lab.brakes import Watched
from podlab.lab.steady import boot_id, steady_now
from podlab.renting import Armed

FORMAT = 1
LOCK_S = 2.0
HELD_S = 90.0
"""How long a process that stopped renewing still has the lease: three rounds and a slow provider."""


@dataclass(frozen=True)
class Owner:
    """Who tends. `token` is one process's own."""

    who: Literal["keeper", "kernel"]
    token: str = ""
    pid: int = 0
    host: str = ""

    @classmethod
    def here(cls, who: Literal["keeper", "kernel"]) -> Owner:
        """This process."""
        return cls(who, random.token_hex(8), os.getpid(), socket.gethostname())


@dataclass(frozen=True)
class Held:
    """The lease as it is now."""

    owner: Owner
    boot: str
    steady_until: float
    wall_from: float
    wall_until: float


@dataclass(frozen=True)
class PodNote:
    """What is remembered of one pod from round to round. Times are by the steady clock of `boot`."""

    launch: str
    watched: Watched
    boot: str = ""
    armed: Armed | None = None
    """What its switch last said."""
    heard_at: float | None = None
    heard_wall_at: float | None = None
    tried_since: float | None = None
    """Since when it was tried in vain to hear it; None while it answers."""
    unarmed_since: float | None = None
    ssh_host: str = ""
    """Where its sshd answered last: a provider that does not answer keeps nobody from telling a pod to live on."""
    ssh_port: int | None = None
    ending: str = ""
    """Why it has to end, also where no ledger could be written."""
    problem: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProviderNote:
    """What is remembered of a provider. Times are by the wall clock."""

    name: str
    answered_at: float | None = None
    identity: str = ""
    """Of the key that it answered to, as `Provider.identity` has it."""
    problem: str = ""
    bills_at: float | None = None
    billed: tuple[str, ...] = ()
    """What is wrong with its bills, in words."""


@dataclass(frozen=True)
class Notes:
    """What the last round found. `at` is by the wall clock."""

    at: float = 0.0
    held: Held | None = None
    pods: tuple[PodNote, ...] = ()
    providers: tuple[ProviderNote, ...] = ()
    alarms: tuple[str, ...] = ()
    """What a person has to see: a ledger that cannot be read, a pod that does not end."""
    warnings: tuple[str, ...] = ()

    def pod(self, launch: str) -> PodNote | None:
        """What is remembered of a pod."""
        return next((note for note in self.pods if note.launch == launch), None)

    def provider(self, name: str) -> ProviderNote:
        """What is remembered of a provider."""
        return next((note for note in self.providers if note.name == name), ProviderNote(name))


@dataclass(frozen=True)
class TendingFile:
    """The file, safe with several processes. The clocks come in, so that a test can have its own."""

    path: Path
    now: Callable[[], float] = time.time
    steady: Callable[[], float] = steady_now
    boot: str = field(default_factory=boot_id)
    held_s: float = HELD_S

    def notes(self) -> Notes:
        """What it says; nothing where it is missing or damaged."""
        try:
            return _notes(json.loads(self.path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return Notes()

    def owner(self) -> Owner | None:
        """Who tends now; None when nobody does."""
        held = self.notes().held
        return held.owner if held is not None and self._is_valid(held) else None

    def take(self, owner: Owner) -> bool:
        """Have the lease, or renew it; False while another one has it. Raises StateDamaged when it cannot be written.

        Renewed before each deed: a process that was stopped in between learns here that it is not its turn any more.
        """
        with self._locked():
            notes = self.notes()
            if notes.held is not None and notes.held.owner.token != owner.token and self._is_valid(notes.held):
                return False
            if not self._is_fresh(notes.held, owner):
                self._write(replace(notes, held=self._held(owner)))
            return True

    def write(self, owner: Owner, notes: Notes) -> bool:
        """Write what a round found and renew the lease; False, and nothing written, when another one has it."""
        with self._locked():
            held = self.notes().held
            if held is not None and held.owner.token != owner.token and self._is_valid(held):
                return False
            self._write(replace(notes, held=self._held(owner)))
            return True

    def release(self, owner: Owner) -> None:
        """Let another one tend at once. Nothing happens when the lease is another one's."""
        with contextlib.suppress(StateDamaged), self._locked():
            notes = self.notes()
            if notes.held is not None and notes.held.owner.token == owner.token:
                self._write(replace(notes, held=None))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others out for a moment. One that was stopped in here does not keep them out for ever: what they do
        then is safe to be done twice, and a pod that nobody ends is not."""
        path = self.path.with_name("tending.lock")
        with translated(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + LOCK_S
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def _held(self, owner: Owner) -> Held:
        now = self.now()
        return Held(owner, self.boot, self.steady() + self.held_s, now, now + self.held_s)

    def _is_valid(self, held: Held) -> bool:
        if held.boot == self.boot:
            if held.owner.host == socket.gethostname() and not _is_alive(held.owner.pid):
                return False
            return 0 <= held.steady_until - self.steady() <= self.held_s
        if held.owner.host == socket.gethostname():
            return False  # this computer was started anew since
        return held.wall_from <= self.now() <= held.wall_until

    def _is_fresh(self, held: Held | None, owner: Owner) -> bool:
        """Whether our lease was renewed so lately that it need not be written again."""
        if held is None or held.owner.token != owner.token or not self._is_valid(held):
            return False
        return held.steady_until - self.steady() > self.held_s * 0.8

    def _write(self, notes: Notes) -> None:
        replace_file(self.path, json.dumps({"format": FORMAT} | asdict(notes)).encode(), sync=False)


def _is_alive(pid: int) -> bool:
    """Whether there is such a process here. A number that went to another one only means to wait for the lease."""
    if pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    with contextlib.suppress(OSError):  # one that was killed and that nobody has collected yet
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    return True


def _notes(table: Any) -> Notes:
    if table["format"] != FORMAT:
        return Notes()
    held = table["held"]
    return Notes(
        float(table["at"]),
        Held(Owner(**held.pop("owner")), **held) if held else None,
        tuple(_pod(row) for row in table["pods"]),
        tuple(ProviderNote(**row | {"billed": tuple(row["billed"])}) for row in table["providers"]),
        tuple(map(str, table["alarms"])),
        tuple(map(str, table["warnings"])),
    )


def _pod(row: Any) -> PodNote:
    armed = row.pop("armed")
    if armed is not None:
        armed["busy"] = tuple(armed["busy"])
    row["warnings"] = tuple(row["warnings"])
    return PodNote(watched=Watched(**row.pop("watched")), armed=Armed(**armed) if armed else None, **row)
