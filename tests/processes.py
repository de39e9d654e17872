"""Which processes of podlab's are there: counted by their marks, not by what podlab says."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_COUNT = itertools.count(4000)


def marked(mark: str) -> list[int]:
    """Processes of this user whose environment holds `mark`, such as PODLAB_ENDPOINT=<id>, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark.encode() in environment and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def saying(words: str) -> list[int]:
    """Processes whose command line holds `words`, this one left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if words.encode() in line:
                found.append(int(entry.name))
    return sorted(found)


def running(line: str) -> list[int]:
    """Processes of exactly that command line."""
    found = []
    for pid in saying(line):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode() == line:
                found.append(pid)
    return found


@contextlib.contextmanager
def silent_command() -> Iterator[str]:
    """A command line that says nothing and runs for longer than any test, and that no other test on this machine has;
    what of it still runs at the end is killed."""
    line = f"sleep {next(_COUNT)}.{os.getpid()}"
    yield line
    for pid in running(line):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def slowed(pid: int) -> Iterator[None]:
    """Let a process run for a small part of the time only: the built-in model answers faster than a test can look."""
    done = threading.Event()

    def throttle() -> None:
        while not done.is_set():
            os.kill(pid, signal.SIGSTOP)
            done.wait(0.06)
            os.kill(pid, signal.SIGCONT)
            done.wait(0.002)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def blocks(pid: int, thread: int, number: int) -> bool:
    """Whether a thread lets a signal wait, as those of some C libraries do."""
    status = Path(f"/proc/{pid}/task/{thread}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def interrupt_past_the_main_thread(pid: int) -> None:
    """Send SIGINT to a process so that another thread of it takes it, as the kernel may choose to do."""
    threads = [int(name) for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]
    others = [thread for thread in threads if not blocks(pid, thread, signal.SIGINT)]
    assert others, f"none of {threads} takes it"
    if ctypes.CDLL(None, use_errno=True).tgkill(pid, others[0], int(signal.SIGINT)) != 0:
        raise OSError(ctypes.get_errno(), "tgkill")


def wait_until(what: Callable[[], object], *, timeout_s: float, why: str) -> None:
    """Wait for something outside of this process that nobody tells of."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {why}")
        time.sleep(0.02)


def deleted_under_way(folder: Path) -> None:
    """Delete a folder that processes may be writing into. It is moved away first: nothing more can appear in it then,
    and no deletion meets a file that was made a moment ago."""
    gone = folder.with_name(f".lost-{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone)


@contextlib.contextmanager
def running_child(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the test is over; what it reads never comes."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@contextlib.contextmanager
def stopped_holder(lock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock on a file and was stopped, as by Ctrl-Z; ended with the block."""
    body = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from podlab.durable import locked
        with locked(Path(sys.argv[1])):
            print("held", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        print("let go", flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", body, str(lock)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield process
        finally:
            process.kill()
