"""Real processes killed in the middle, on this computer: the next kernel tells the truth, and nothing runs twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests import processes
from tests.kernels import Kernel

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
FULL = os.environ.get("PODLAB_FULL") == "1"
MOMENTS_MS = [0, 60, 120, 200, 300, 450, 700] if not FULL else [25 * step for step in range(60)]
SLACK = 3
CRASH_S = 5.0 * SLACK
LONG = "%%chat --max-tokens 1800 --temperature 1 --new\nTell me a short story about a fox."


def engines() -> list[int]:
    """Engine processes of this test's PODLAB_HOME."""
    return processes.saying(f"{os.environ['PODLAB_HOME']}/pod/endpoints")


def engine_and_monitor(kernel: Kernel) -> tuple[int, list[int]]:
    (endpoint,) = kernel.endpoints()
    return endpoint["pid"], [pid for pid in engines() if pid != endpoint["pid"]]


@pytest.mark.parametrize("moment_ms", random.Random(7).sample(MOMENTS_MS, len(MOMENTS_MS)))
def test_kernel_killed_during_start(moment_ms: int) -> None:
    """Whenever the kernel dies in `model start`, starting again in a new kernel ends with exactly one engine."""
    with Kernel() as first:
        first.begin("%model start tiny")
        processes.wait_until(_after(moment_ms), timeout_s=10, why="a moment passed")
        first.kill()
    with Kernel() as second:
        states = [endpoint["state"] for endpoint in second.endpoints()]
        assert states in ([], ["loading"], ["ready"])
        second.run("%model start tiny")
        (endpoint,) = second.endpoints()
        assert endpoint["state"] == "ready"
        serving = [pid for pid in engines() if pid == endpoint["pid"]]
        assert len(serving) == 1
        assert len([pid for pid in engines() if "llamacpp_server.py" in _line(pid)]) == 1


def test_kernel_killed_during_chat() -> None:
    """The engine outlives the kernel, stops generating for it, and a new kernel chats on at once."""
    with Kernel() as first:
        first.run("%model start tiny -- --ignore-eos")
        pid, _ = engine_and_monitor(first)
        with processes.slowed(pid):
            message = first.begin(LONG)
            first.listen(message, until=lambda said: bool(said.displayed))
            first.kill()
    with Kernel() as second:
        (endpoint,) = second.endpoints()
        assert endpoint["state"] == "ready"
        assert second.run("%%chat\nSay hello.").displayed


def test_engine_killed() -> None:
    """kill -9 on the engine: within seconds the state is crashed, with signal 9 as its cause."""
    with Kernel() as kernel:
        kernel.run("%model start tiny")
        pid, _ = engine_and_monitor(kernel)
        os.kill(pid, signal.SIGKILL)
        seen: list[dict[str, object]] = []

        def crashed() -> bool:
            seen[:] = kernel.endpoints()
            return seen[0]["state"] == "crashed"

        processes.wait_until(crashed, timeout_s=CRASH_S, why=f"crashed: {seen}")
        assert seen[0]["cause"] == "killed"
        assert seen[0]["exit_status"] == 137
        said = kernel.run("%%chat\nSay hello.", check=False)
        assert said.error is not None and len(said.error) <= 3


def test_monitor_killed() -> None:
    """Without its monitor the engine still serves and its state is still true; its later death is a crash."""
    with Kernel() as kernel:
        kernel.run("%model start tiny")
        pid, monitors = engine_and_monitor(kernel)
        assert monitors
        for monitor in monitors:
            os.kill(monitor, signal.SIGKILL)
        processes.wait_until(lambda: engines() == [pid], timeout_s=10, why="the monitor is gone")
        (endpoint,) = kernel.endpoints()
        assert (endpoint["state"], endpoint["pid"]) == ("ready", pid)
        assert kernel.run("%%chat\nSay hello.").displayed
        os.kill(pid, signal.SIGKILL)
        processes.wait_until(
            lambda: [e["state"] for e in kernel.endpoints()] == ["crashed"], timeout_s=CRASH_S, why="crashed"
        )


def test_an_interrupt_during_start_ends_the_watching_and_not_the_server() -> None:
    """The stop button during `model start`: what the pod has begun goes on, is said to, and runs once."""
    with Kernel() as kernel:
        message = kernel.begin("%model start tiny")
        processes.wait_until(lambda: bool(engines()), timeout_s=10, why="it has begun to start")
        kernel.interrupt()
        said = kernel.listen(message, until=lambda _: False)
        if said.error is None:
            pytest.skip("it was ready before the interrupt arrived")
        found = kernel.endpoints()
        if not found:  # the interrupt came before the pod had answered: then nothing may be left
            assert engines() == []
            return
        assert "goes on loading" in said.text + "".join(map(str, said.displayed))
        processes.wait_until(
            lambda: [e["state"] for e in kernel.endpoints()] == ["ready"], timeout_s=30, why="it becomes ready"
        )
        assert len(engines()) == 1


def _line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _after(moment_ms: int) -> Callable[[], bool]:
    end = time.monotonic() + moment_ms / 1000
    return lambda: time.monotonic() >= end
