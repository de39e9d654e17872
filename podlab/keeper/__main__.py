"""`python -m podlab.keeper`: detach, take the lock of PODLAB_HOME, and serve it.

Whoever starts it reads its stderr: a line that says why it cannot serve, or kept_link.READY. From then on it has no
standard streams, no terminal, and no working folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import socket
import sys
import time

LOCK_TIMEOUT_S = 8.0
DESCRIPTORS = 8192


def main() -> int:
    """Detach and serve; the exit status of the process that was started, which ends at once."""
    # Before anything is imported that has threads. Twice removed from whoever starts it: the end of a kernel and all
    # its descendants is not the end of the keeper, and nobody has to wait for it.
    if os.fork():
        return 0
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    try:
        _serve()
    except Exception as error:  # the outer edge: whoever started it is told
        logging.getLogger("podlab.keeper").exception("the keeper failed")
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    logging.shutdown()
    os._exit(0)  # without waiting for threads that wait for pods


def _serve() -> None:
    from podlab.logs import start_logging
    from podlab.transport.kept_link import READY
    from podlab.transport.kept_place import Place

    place = Place.here()
    start_logging()
    lock = _lock(place.lock)
    _raise_limits()
    from podlab.keeper.server import IDLE_S, Keeper

    keeper = Keeper(place, lock, idle_s=float(os.environ.get("PODLAB_KEEPER_IDLE_S") or IDLE_S))
    os.write(2, READY)
    _close_streams()
    keeper.run()


def _lock(path: os.PathLike[str]) -> int:
    """The lock that one keeper per home holds. Raises TimeoutError naming who does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:  # an old one is just ending, or it is on another machine that shares the home
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
                raise TimeoutError(f"another keeper ({holder or 'unknown'}) holds {path}") from error
            time.sleep(0.02)
    with contextlib.suppress(OSError):  # on a full disk it holds the lock all the same, without its name
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _raise_limits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _close_streams() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
