"""ledger.jsonl: what was asked of providers, written before it was asked. Append-only, checksummed, fsynced.

A line is a JSON object with a running number, a time, a verb, what it was about, and a checksum that also covers the
line before, so a removed or edited line shows. The last line may be torn by a power cut: it was never acted on, and
is cut off. Damage anywhere else fails closed: without a readable ledger nothing is created.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from podlab.durable import LOCK_S, locked, sync_folder
from podlab.errors import StateDamaged
from podlab.settings import home

AGAIN_S = 1.0
"""How long the lock is waited for once it could not be had: one who ends many pods must not wait for each of them."""


@dataclass(frozen=True)
class Entry:
    """One line. `at` is seconds since the epoch; `subject` the pod's id; `detail` small facts, never a secret."""

    number: int
    at: float
    verb: str
    subject: str
    detail: dict[str, str]


@dataclass(frozen=True)
class _Read:
    """The beginning of a file that was read and found whole: as long as its bytes are the same, it is."""

    entries: tuple[Entry, ...]
    chain: str
    size: int
    digest: bytes


_known: dict[Path, _Read] = {}
"""Of each file, by its path: with thousands of lines each is looked at once in a process."""


class Trust(StrEnum):
    """How far a line of a damaged file is to be believed."""

    PROVEN = "proven"
    """It is what was written: its sum holds."""
    ALONE = "alone"
    """It is whole, but the line before it is lost, without which its sum says nothing."""
    WRONG = "wrong"
    """The line before it is there, and its sum does not hold: it was changed, or it is not of this ledger."""


@dataclass(frozen=True)
class Salvaged:
    """A line of a damaged file."""

    entry: Entry
    trust: Trust


class Ledger:
    """The file, safe with several processes. One of them that was stopped while it wrote holds up no other for longer
    than `lock_s`: then nothing can be written, which is as bad as a damaged file."""

    def __init__(
        self, path: Path | None = None, *, now: Callable[[], float] = time.time, lock_s: float = LOCK_S
    ) -> None:  # fmt: skip
        self._path = path or home() / "ledger.jsonl"
        self._now = now
        self._lock_s = lock_s
        self._waited_in_vain = False

    def append(self, verb: str, subject: str, **detail: str) -> Entry:
        """Write one line and return once it is on the disk.

        Raises StateDamaged when the file cannot be trusted or written; then the thing it announces must not be done.
        """
        return self.append_checked(verb, subject, lambda entries: detail)

    def append_checked(
        self, verb: str, subject: str, decide: Callable[[list[Entry]], Mapping[str, str]]
    ) -> Entry:  # fmt: skip
        """Write one line whose detail `decide` makes of all lines so far, with no other writer in between.

        What `decide` raises comes out, and nothing is written. It must not touch a ledger. Raises StateDamaged as
        `append` does.
        """
        with self._alone():
            entries, chain, intact_bytes = self._read()
            entry = Entry(len(entries) + 1, self._now(), verb, subject, dict(decide(entries)))
            line = _line(entry, chain)
            try:
                self._write(line, intact_bytes)
            except OSError as error:
                raise StateDamaged(
                    f"{self._path} cannot be written: {error.strerror or error}.",
                    hint="Nothing was asked of a provider. See that its disk has room.",
                ) from error
        return entry

    def entries(self) -> list[Entry]:
        """All lines, oldest first. Raises StateDamaged when one before the last cannot be trusted."""
        try:
            return self._read()[0]
        except StateDamaged:
            # Somebody may be cutting off a torn line and writing another at this moment.
            with self._alone():
                return self._read()[0]

    def salvaged(self) -> list[Salvaged]:
        """What can still be read of a file that cannot be trusted, in its order; [] when nothing can.

        Nothing may be asked for because of these lines, but what they speak of may be ended: how far each is to be
        believed stands beside it. A line's sum is held against the line before it, by the sum that stands there and by
        the one that its content makes; and against the last proven line, so that one that was put in between takes
        nothing else along. What is no line, and a torn last one, is left out.
        """
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except OSError:
            return []
        found: list[Salvaged] = []
        proven = stated = ""
        made: set[str] = set()
        number_before: int | None = 0
        for line in lines:
            read = _read_line(line)
            if read is None:
                stated, made, number_before = proven, set(), None
                continue
            entry, fields, said = read
            trust = Trust.ALONE if number_before is None or entry.number != number_before + 1 else Trust.WRONG
            if said in (_checksum(fields, stated), _checksum(fields, proven)):
                trust = Trust.PROVEN
            elif said in {_checksum(fields, chain) for chain in made}:
                trust = Trust.PROVEN
                found[-1] = replace(found[-1], trust=trust)  # it was only its sum that was damaged
            found.append(Salvaged(entry, trust))
            made = set() if trust is Trust.PROVEN else {_checksum(fields, chain) for chain in (stated, proven)}
            proven = said if trust is Trust.PROVEN else proven
            stated, number_before = said, entry.number
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """With no other writer meanwhile."""
        is_ours = False
        wait_s = min(AGAIN_S, self._lock_s) if self._waited_in_vain else self._lock_s
        try:
            with locked(self._path.with_name("ledger.lock"), wait_s=wait_s):
                is_ours = True
                yield
        finally:
            self._waited_in_vain = not is_ours

    def _write(self, line: bytes, at_byte: int) -> None:
        """Put `line` at the end, which is `at_byte`, and return once it is on the disk; or leave the file as it was."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, at_byte)
            os.lseek(descriptor, at_byte, os.SEEK_SET)
            _write_all(descriptor, line)
            os.fsync(descriptor)
            sync_folder(self._path.parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, at_byte)  # not committed, so not to be read as if it were
            raise
        finally:
            os.close(descriptor)

    def _read(self) -> tuple[list[Entry], str, int]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return [], "", 0
        except OSError as error:
            raise StateDamaged(
                f"{self._path} cannot be read: {error.strerror or error}.",
                hint="Nothing new is asked of a provider without it.",
            ) from error
        known = _known.get(self._path)
        digest = hashlib.sha256(data[: known.size] if known is not None else b"")
        if known is None or len(data) < known.size or digest.digest() != known.digest:
            known, digest = _Read((), "", 0, b""), hashlib.sha256()
        entries, chain, intact_bytes = list(known.entries), known.chain, known.size
        lines = data[known.size :].splitlines(keepends=True)
        for position, line in enumerate(lines):
            entry, chain_after = _parse(line, chain, number=len(entries) + 1)
            if entry is None:
                if position == len(lines) - 1 and _is_torn(line):
                    break
                raise StateDamaged(
                    f"{self._path} line {len(entries) + 1} is damaged, so nothing new will be asked of a provider.",
                    hint="Keep a copy, then see which pods exist at the provider before you move it away.",
                )
            entries.append(entry)
            chain, intact_bytes = chain_after, intact_bytes + len(line)
        digest.update(data[known.size : intact_bytes])
        _known[self._path] = _Read(tuple(entries), chain, intact_bytes, digest.digest())
        return entries, chain, intact_bytes


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _line(entry: Entry, chain: str) -> bytes:
    fields = {"n": entry.number, "at": entry.at, "verb": entry.verb, "subject": entry.subject, "detail": entry.detail}
    return json.dumps(fields | {"sum": _checksum(fields, chain)}).encode() + b"\n"


def _checksum(fields: dict[str, object], chain: str) -> str:
    return hashlib.sha256((chain + json.dumps(fields, sort_keys=True)).encode()).hexdigest()[:32]


def _is_torn(line: bytes) -> bool:
    """Whether a power cut can have left this: the beginning of a line. A whole one with more behind it is damage."""
    if line.endswith(b"\n"):
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return True
    return end == len(line)


def _parse(line: bytes, chain: str, *, number: int) -> tuple[Entry | None, str]:
    """The entry a line holds and its checksum; None when it is not whole."""
    read = _read_line(line)
    if read is None or read[2] != _checksum(read[1], chain) or read[0].number != number:
        return None, chain
    return read[0], read[2]


def _read_line(line: bytes) -> tuple[Entry, dict[str, object], str] | None:
    """The entry that a line holds, its fields, and the checksum that stands there, not looked at; None: it is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        fields = json.loads(line)
        if json.dumps(fields).encode() + b"\n" != line:
            return None  # it means the same, but it is not what was written
        said = fields.pop("sum")
        entry = Entry(fields["n"], fields["at"], fields["verb"], fields["subject"], fields["detail"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    detail = fields["detail"]
    texts = (said, entry.verb, entry.subject, *detail.values()) if type(detail) is dict else (None,)
    is_one = type(entry.number) is int and type(entry.at) in (int, float) and all(type(each) is str for each in texts)
    return (entry, fields, said) if is_one else None
