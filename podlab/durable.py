"""Files that survive kill -9, a full disk and other processes: private modes, atomic replacement, locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from podlab.errors import StateDamaged

LOCK_S = 20.0
"""How long a lock is waited for. Nobody holds one for as long, but for a process that was stopped, or whose disk
hangs."""
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.05


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """What the operating system refuses, as an error of ours (StateDamaged) that names the file."""
    try:
        yield
    except OSError as error:
        raise StateDamaged(
            f"{path} cannot be used: {error.strerror or error}.",
            hint="See that its disk has room, and that its folder is yours and can be written.",
        ) from error


def private_folder(path: Path) -> Path:
    """`path` as a folder only its owner can enter (0700), made if missing, and so are the folders above it.

    Raises StateDamaged when it is not ours or cannot be made.
    """
    with translated(path):
        for missing in (*reversed([above for above in path.parents if not above.exists()]), path):
            missing.mkdir(mode=0o700, exist_ok=True)
        info = path.stat()
        if info.st_uid != os.getuid():
            raise StateDamaged(f"{path} belongs to another user.", hint="Set PODLAB_HOME to a folder of your own.")
        if stat.S_IMODE(info.st_mode) != 0o700:
            path.chmod(0o700)
    return path


def replace_file(path: Path, data: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Put `data` at `path`: afterwards the old content or the new is there, never a mixture, whatever happens.

    A symlink at `path` is replaced, not followed. Without `sync` that is promised for the end of any process, and after
    a power cut nothing is. Raises StateDamaged when it cannot be written.
    """
    with translated(path):
        _replace(path, data, mode, sync)


def _replace(path: Path, data: bytes, mode: int, sync: bool) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename or a new file in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, wait_s: float = LOCK_S) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing, never removed) while the body runs.

    The kernel releases it when the process ends, however it ends. Raises StateDamaged when it cannot be made, and when
    another process still holds it after `wait_s` seconds: one that was stopped would hold it for ever.
    """
    with translated(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with translated(path):
            is_ours = _wait_for(descriptor, wait_s)
        if not is_ours:
            raise StateDamaged(
                f"{path} is held by another process for more than {wait_s:.0f} s{_holder(descriptor)}.",
                hint="Let it go on (fg in its terminal, or kill -CONT), or end it.",
            )
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of `path` now; nobody holds that of a file that is not there.

    Raises StateDamaged when it cannot be looked at.
    """
    with translated(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
    return False


def _wait_for(descriptor: int, wait_s: float) -> bool:
    """Whether the lock is ours within `wait_s`."""
    until, pause_s = time.monotonic() + wait_s, SHORTEST_PAUSE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _holder(descriptor: int) -> str:
    """Which process holds the lock, in brackets, where Linux tells it; else ""."""
    inode = f":{os.fstat(descriptor).st_ino}"
    try:
        rows = [row.split() for row in Path("/proc/locks").read_text().splitlines()]
        pid = next(row[4] for row in rows if row[1] == "FLOCK" and row[5].endswith(inode))
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2][:1]
    except (OSError, IndexError, StopIteration):
        return ""
    stopped = ", which is stopped" if state in ("T", "t") else ""
    return f" (process {pid}, {Path(words[0]).name}{stopped})"
