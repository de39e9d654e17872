"""Ctrl-C and the stop button while a command runs that says nothing, also where the main thread is not told of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests import processes
from tests.kernels import Kernel

CLI = [sys.executable, "-c", "from podlab.cli import main; main()"]


def plainly(pid: int) -> None:
    os.kill(pid, signal.SIGINT)


WAYS = [plainly, processes.interrupt_past_the_main_thread]


@pytest.fixture(params=WAYS, ids=["to the process", "to another thread"])
def interrupt(request: pytest.FixtureRequest) -> Callable[[int], None]:
    way: Callable[[int], None] = request.param
    return way


@pytest.fixture
def line() -> Iterator[str]:
    """A command that says nothing."""
    with processes.silent_command() as line:
        yield line


def test_in_a_terminal_it_ends_the_command(interrupt: Callable[[int], None], line: str) -> None:
    process = subprocess.Popen([*CLI, "pod", "run", *line.split()], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    processes.wait_until(lambda: processes.running(line), timeout_s=60, why="the command runs")
    interrupt(process.pid)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not processes.running(line)


@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.1])
def test_pressed_twice_it_ends_the_command_all_the_same(line: str, pause_s: float) -> None:
    """A second Ctrl-C does not cut short the first one's request to stop; what had been told is being stopped."""
    process = subprocess.Popen(
        [*CLI, "pod", "run", *line.split()], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0
    )
    processes.wait_until(lambda: processes.running(line), timeout_s=60, why="the command runs")
    plainly(process.pid)
    assert process.stderr is not None
    while b"stopping" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(pause_s)  # into the request, wherever that is by then
    plainly(process.pid)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not processes.running(line), said


def test_in_a_notebook_it_ends_the_command_and_the_kernel_goes_on(interrupt: Callable[[int], None], line: str) -> None:
    with Kernel() as kernel:
        message = kernel.begin(f"%pod run {line}")
        processes.wait_until(lambda: processes.running(line), timeout_s=60, why="the command runs")
        interrupt(kernel.pid)
        said = kernel.listen(message, until=lambda _: False)
        assert said.error_name == "Interrupted"
        assert not processes.running(line)
        assert kernel.run("%pod run echo again").stdout == "again\n"
