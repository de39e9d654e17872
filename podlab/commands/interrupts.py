"""An interrupt that is always heard. Python by itself may miss one, and then waits on as if nobody had pressed a key.

A signal is only noted when it comes; its handler runs when the main thread next looks (Python's documentation of
`signal`, "Execution of Python signal handlers"). That goes wrong in two ways, and a busy machine meets both:

- it comes after the main thread has looked, but before the system call in which that waits (for the interpreter's
  lock, say), or another thread takes it. The call then knows of nothing, and a queue that stays empty never returns;
- it is raised in a finalizer or the callback of a weak reference, where Python prints the error and goes on.

While `heard` is in force, a thread of its own is told of every signal by a pipe. It pokes the main thread out of its
system call, after which that looks; and what was lost in a finalizer is sent again.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

POKE = signal.SIGURG
"""A signal nobody uses and whose default is to do nothing, so that one too many does no harm."""
POKES_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""When the main thread is poked after an interrupt. A poke may itself come before the call that it should end."""
_END = 255
"""What else goes through the pipe; no signal has this number."""


class _Finalizers:
    """What is known of interrupts that were raised where Python only prints them. Written with plain assignments:
    in a call an interrupt could come again."""

    __slots__ = ("are_told_of", "lost_one")

    def __init__(self) -> None:
        self.lost_one = False
        self.are_told_of = False
        """The hook is at work: what is sent now would be lost in there."""


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """While the body runs, an interrupt reaches it wherever it waits. Elsewhere than on the main thread, where no
    interrupt comes, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.ExitStack() as undo:  # each step is undone, also when an interrupt falls between two of them
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        undo.callback(os.close, writer)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        undo.callback(signal.set_wakeup_fd, before, warn_on_full_buffer=False)
        finalizers = _Finalizers()
        watch = threading.Thread(
            target=_watch,
            args=(reader, before, threading.get_ident(), finalizers),
            name="podlab-interrupts",
            daemon=True,
        )
        watch.start()
        undo.callback(watch.join, 1.0)
        undo.callback(_write, writer, _END)
        undo.callback(signal.signal, POKE, signal.signal(POKE, _look))
        hook = sys.unraisablehook
        undo.callback(setattr, sys, "unraisablehook", hook)
        sys.unraisablehook = _noting(finalizers, hook)
        yield


def _look(_number: int, _frame: FrameType | None) -> None:
    """That a handler is called at all is what matters: all that wait are called with it."""


def _noting(finalizers: _Finalizers, otherwise: Callable[[Any], None]) -> Callable[[Any], None]:
    def ignored(lost: Any) -> None:
        finalizers.are_told_of = True
        try:
            if lost.exc_type is not None and issubclass(lost.exc_type, KeyboardInterrupt):
                finalizers.lost_one = True
            else:
                otherwise(lost)
        except KeyboardInterrupt:  # it, too, would be ignored
            finalizers.lost_one = True
        finalizers.are_told_of = False

    return ignored


def _write(descriptor: int, number: int) -> None:
    with contextlib.suppress(OSError):  # a pipe that is full wakes its reader, too
        os.write(descriptor, bytes((number,)))


def _watch(reader: int, forward: int, main: int, finalizers: _Finalizers) -> None:
    """Read the numbers of signals until the end; `forward` is who was told of them before, or -1."""
    due: list[float] = []
    try:
        while True:
            wait_s = max(0.0, due[0] - time.monotonic()) if due else None
            if not select.select([reader], [], [], wait_s)[0]:
                del due[0]
                if not finalizers.lost_one:
                    signal.pthread_kill(main, POKE)
                elif not finalizers.are_told_of:
                    finalizers.lost_one = False
                    signal.pthread_kill(main, signal.SIGINT)  # of which the pipe tells, as of any
                elif not due:
                    due = [time.monotonic() + POKES_S[0]]
                continue
            for number in os.read(reader, 512):
                if number == _END:
                    return
                if forward >= 0 and number != POKE:
                    _write(forward, number)
                if number == signal.SIGINT:
                    now = time.monotonic()
                    due = [now + pause_s for pause_s in POKES_S]
    finally:
        os.close(reader)
