"""`python -m podlab.sandbox`: detach, take the lock of PODLAB_HOME, open a company there, and serve until told to end.

Whoever starts it reads its stderr: a line that says why it cannot serve, or control.READY. It goes on when its starter
is gone. Killed by force, it takes its pods with it: each pod's first process notices.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time

LOOK_S = 2.0
LOCK_S = 10.0


def main() -> int:
    """Detach and serve; the exit status of the process that was started, which ends at once."""
    told = _arguments()
    if os.fork():
        return 0
    os.setsid()
    os.umask(0o077)
    os.chdir("/")
    status = 0
    try:
        _serve(told)
    except Exception as error:  # noqa: BLE001 - the outer edge: whoever started it is told
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        status = 1
    os._exit(status)  # without waiting for threads that wait for clients


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m podlab.sandbox")
    parser.add_argument("--speed", type=float, default=1.0, help="how many seconds of bill a second is")
    parser.add_argument("--balance", type=float, default=25.0, help="dollars of the account at the beginning")
    return parser.parse_args()


def _serve(told: argparse.Namespace) -> None:
    from podlab.sandbox.control import LAG_S, PACE, READY
    from podlab.sandbox.place import Place, Said
    from podlab.sandbox.serve import start

    place = Place.here()
    deadline = time.monotonic() + LOCK_S
    while (lock := place.take()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"another process holds {place.lock}")
        time.sleep(0.05)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: over.set())
    running = start(place.folder, speed=told.speed, pace=PACE, balance_usd=told.balance)
    running.rest.end = over.set
    place.write(Said(running.url, running.key, os.getpid(), told.speed, LAG_S))
    os.write(2, READY)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    while not over.wait(LOOK_S):
        said = place.read()
        if said is None or said.pid != os.getpid():
            break  # its home is gone, or somebody put another one in its place
    place.leave(os.getpid())
    running.stop()
    os.close(lock)


if __name__ == "__main__":
    sys.exit(main())
