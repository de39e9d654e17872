"""Interrupts that Python by itself would not tell of: none depends on the moment at which one comes."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator

import pytest

from podlab.commands import interrupts
from podlab.commands.drive import drive
from podlab.events import Answer, Event, Notice, Stage
from tests.audiences import Silent

FOREVER_S = 100.0
"""Longer than the suite lets any test take."""


def wait_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def wait_for_a_child() -> None:
    with subprocess.Popen(["sleep", str(FOREVER_S)], start_new_session=True) as child:
        try:
            child.wait()
        finally:
            child.kill()


def wait_for_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


WAITS: dict[str, Callable[[], object]] = {
    "an empty queue": lambda: queue.Queue[int]().get(),
    "an event": lambda: threading.Event().wait(),
    "an event, for a while": lambda: threading.Event().wait(FOREVER_S),
    "a lock": wait_for_a_lock,
    "a child": wait_for_a_child,
    "a socket": wait_for_a_socket,
    "a sleep": lambda: time.sleep(FOREVER_S),
}


def waiting(wait: Callable[[], object], trail: list[str]) -> Generator[Event, Answer, None]:
    """Work that says one word and then waits for what never comes."""
    try:
        yield Stage("a", "Waiting")
        wait()
        trail.append("came back")
    except KeyboardInterrupt:
        yield Notice("Stopping it.")
        trail.append("stopped")
        raise


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_one_that_another_thread_takes_ends_the_wait(wait: Callable[[], object]) -> None:
    """The system call of the main thread knows of nothing then, just as when a signal comes right before it."""
    trail: list[str] = []
    began = threading.Event()

    def strike() -> None:
        began.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    def about_to_wait() -> object:
        began.set()
        return wait()

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        drive(waiting(about_to_wait, trail), Silent())
    assert trail == ["stopped"]
    thread.join()


class Struck:
    """Is interrupted in its finalizer."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def struck_by_a_finalizer() -> None:
    struck = Struck()
    del struck
    threading.Event().wait()


def struck_by_a_callback() -> None:
    """As Python's import system has one for each module it loads."""
    target = threading.Event()
    reference = weakref.ref(target, lambda _: signal.raise_signal(signal.SIGINT))
    del target
    assert reference() is None
    threading.Event().wait()


@pytest.mark.parametrize("wait", [struck_by_a_finalizer, struck_by_a_callback])
def test_one_that_is_lost_in_a_finalizer_comes_again(
    wait: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Python ignores it there, with a word on standard error."""
    trail: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        drive(waiting(wait, trail), Silent())
    assert trail == ["stopped"]
    assert "ignored" not in capfd.readouterr().err


def test_another_error_in_a_finalizer_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(str(lost.exc_value)))

    class Wrong:
        def __del__(self) -> None:
            raise ValueError("wrong")

    with interrupts.heard():
        wrong = Wrong()
        del wrong
    assert told == ["wrong"]


def state() -> tuple[object, object, object, set[str]]:
    known = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(known)
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("podlab")}
    return known, signal.getsignal(interrupts.POKE), sys.unraisablehook, names


def test_afterwards_everything_is_as_it_was() -> None:
    before = state()
    with interrupts.heard():
        assert state() != before
        with interrupts.heard():
            pass
    assert state() == before
    with pytest.raises(KeyboardInterrupt), interrupts.heard():
        signal.raise_signal(signal.SIGINT)
    assert state() == before
    descriptors = len(os.listdir("/dev/fd"))
    for _ in range(20):
        with interrupts.heard():
            pass
    assert len(os.listdir("/dev/fd")) == descriptors


def test_who_was_told_of_signals_before_is_told_on() -> None:
    """An event loop under us lives by it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        old = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            with interrupts.heard():
                signal.raise_signal(signal.SIGUSR1)
                assert ours.recv(1) == bytes([signal.SIGUSR1])
        finally:
            signal.signal(signal.SIGUSR1, old)
            signal.set_wakeup_fd(before)


def test_on_another_thread_it_does_nothing() -> None:
    before = state()
    seen: list[object] = []

    def work() -> None:
        with interrupts.heard():
            seen.append(signal.getsignal(interrupts.POKE))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before[1]]
