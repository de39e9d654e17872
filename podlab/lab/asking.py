"""Whether an order may still be on its way: whoever asks a provider for a pod holds a lock for that long.

A process can be stopped for any time between its last look at the clock and the sending of its order: a laptop sleeps,
somebody presses Ctrl-Z. Until it goes on, "the provider knows no such pod" proves nothing, however often it is said. So
a row whose pod was never seen is closed by nobody while its asker lives. The operating system lets go of the lock of a
process however that ends, and of no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from podlab.durable import is_locked, locked, private_folder
from podlab.settings import home


class Asking(Protocol):
    """Who is asking for what. Called by any process of this computer."""

    def held(self, launch_id: str) -> AbstractContextManager[None]:
        """From before the intent until the answer is on the disk. Raises StateDamaged when that cannot be noted."""
        ...

    def is_held(self, launch_id: str) -> bool:
        """Whether its order may still be sent. Raises StateDamaged when that cannot be told."""
        ...


class LockedAsking:
    """A locked file for each order that is being asked for, in PODLAB_HOME/asking."""

    @contextlib.contextmanager
    def held(self, launch_id: str) -> Iterator[None]:
        """Hold the lock of a launch."""
        path = private_folder(_folder()) / launch_id
        with locked(path):
            try:
                yield
            finally:
                _remove(path)

    def is_held(self, launch_id: str) -> bool:
        """Whether a process holds it. The file of one that was killed is removed."""
        path = _folder() / launch_id
        if is_locked(path):
            return True
        _remove(path)
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # one that stays says nothing: nobody holds it
        path.unlink()


def _folder() -> Path:
    return home() / "asking"
