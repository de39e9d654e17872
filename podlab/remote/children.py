"""Work that may hang, in a process of its own that is killed at its deadline. Part of the watchdog.

Standard library only, Python 3.8 or newer. The parent has one thread, so that a fork is safe.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from podlab.remote.machine import Json

RESULT_LIMIT_BYTES = 2**22
PART_BYTES = 65536
_dying: list[int] = []


class Child:
    """One piece of work under way. `descriptor` can be read once there is news; look with `poll`."""

    def __init__(self, work: Callable[[], Json], deadline_s: float, closing: int) -> None:
        """`closing` is a descriptor that the child must not keep open. Raises OSError when no process can be had."""
        self.until = time.monotonic() + deadline_s
        self._said = b""
        self.descriptor, write = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(self.descriptor)
            os.close(write)
            raise
        if self.pid == 0:
            self._be(work, deadline_s, write, closing)
        os.close(write)
        os.set_blocking(self.descriptor, False)

    def _be(self, work: Callable[[], Json], deadline_s: float, write: int, closing: int) -> None:
        try:
            os.close(closing)
            os.close(self.descriptor)
            os.setpgid(0, 0)  # what it starts ends with it
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(deadline_s) + 2)  # should nobody be left to kill it
            data = json.dumps(work()).encode()
            while data:
                data = data[os.write(write, data) :]
        except BaseException as error:  # noqa: BLE001 - told below; a child never returns into its parent's code
            try:
                os.write(write, json.dumps({"failed": f"{type(error).__name__}: {error}"[:300]}).encode())
            except OSError:
                pass  # nobody listens any more
        os._exit(0)

    def poll(self) -> Json | None:
        """What it found, {"failed": why} when it did not; None while it is at it. Not to be asked after that."""
        while select.select([self.descriptor], [], [], 0)[0]:
            part = os.read(self.descriptor, PART_BYTES)
            self._said += part
            if not part:
                return self._found()
            if len(self._said) > RESULT_LIMIT_BYTES:
                return self.end("it said too much")
        return self.end("it did not end in time") if time.monotonic() > self.until else None

    def _found(self) -> Json:
        self.end("")
        try:
            found = json.loads(self._said.decode("utf-8", "replace"))
        except ValueError:
            return {"failed": "it ended without a result"}
        return found if isinstance(found, dict) else {"failed": "it made no sense"}

    def end(self, why: str) -> Json:
        """Kill it. One that hangs in a driver may stay; nobody waits for it."""
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended, or has no group yet
        os.close(self.descriptor)
        _dying.append(self.pid)
        return {"failed": why}


def inline(work: Callable[[], Json], deadline_s: float) -> Json:
    """The same without a process, for where none can be had: the machine's processes are used up, say. It holds up
    everything else until it is done or late; a resolver that hangs is not interrupted before it gives up by itself."""

    def late(*_: object) -> None:
        raise TimeoutError("it did not end in time")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - told, as a child would
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stuck() -> int:
    """How many were killed and are there still: a driver that hangs keeps them."""
    return len(_dying)


def bury() -> None:
    """Take what was killed off the table of processes. Until then its number is nobody else's."""
    for pid in list(_dying):
        try:
            gone = os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            gone = True
        if gone:
            _dying.remove(pid)
