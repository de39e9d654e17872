"""Where the sandbox of a PODLAB_HOME is, whether its process runs, and what it says of itself in sandbox.json."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from podlab.durable import replace_file
from podlab.settings import home


@dataclass(frozen=True)
class Said:
    """What sandbox.json says. `speed`: how many seconds of bill a second is."""

    url: str
    key: str
    pid: int
    speed: float
    lag_s: float = 120.0
    """How late its listings may be: what is rented from it waits so long before an absence counts."""


@dataclass(frozen=True)
class Place:
    """The files of one sandbox."""

    folder: Path
    """What its pods are made of."""
    file: Path
    """sandbox.json, while it is open."""
    lock: Path

    @classmethod
    def here(cls) -> Place:
        """Those of this PODLAB_HOME."""
        return cls(home() / "sandbox", home() / "sandbox.json", home() / "sandbox.lock")

    def read(self) -> Said | None:
        """What sandbox.json says; None when it is missing or makes no sense. It may be of a process that is gone."""
        try:
            given = json.loads(self.file.read_bytes())
            return Said(str(given["url"]), str(given["key"]), int(given["pid"]), float(given.get("speed", 1.0)),
                        float(given.get("lag_s", 120.0)))  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write(self, said: Said) -> None:
        """Tell where it is open, for the owner of the home alone."""
        replace_file(self.file, json.dumps(vars(said)).encode(), mode=0o600, sync=False)

    def is_locked(self) -> bool:
        """Whether a process serves it."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def take(self) -> int | None:
        """Take the lock for as long as this process lives; None when another one has it."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None

    def leave(self, pid: int) -> None:
        """Remove sandbox.json if it is still that process's."""
        said = self.read()
        if said is not None and said.pid == pid:
            with contextlib.suppress(OSError):
                self.file.unlink()
