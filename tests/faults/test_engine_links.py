"""An engine on an SSH pod while links, keepers and kernels die: it serves on, once, and every list tells the truth."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.faults import machine
from tests.kernels import Kernel, Said
from tests.machines import Sshd

ENDLESS = "%%chat --max-tokens 1900 --new\nTell me a short story about a fox."
START = "%model start tiny --on box --slots 1 -- --ignore-eos"


def keepers() -> list[int]:
    """Keeper processes of this test's PODLAB_HOME."""
    return [pid for pid in processes.saying("podlab.keeper") if pid in processes.marked(os.environ["PODLAB_HOME"])]


@pytest.fixture(autouse=True)
def box(sshd: Sshd) -> Iterator[Sshd]:
    """The pod `box`; its engine's environment is made by the first test that needs it and stays there."""
    machine.add(sshd)
    yield sshd
    machine.command("model", "stop", "--all")
    for pid in keepers():
        os.kill(pid, signal.SIGTERM)


def servers(box: Sshd) -> list[int]:
    """Engine processes on the pod."""
    return [pid for pid in processes.saying("llamacpp_server.py") if pid in processes.marked(f"HOME={box.home}")]


def has_work(box: Sshd) -> bool:
    """Whether something of podlab's was started on this pod: others may be at work on this machine."""
    return bool(processes.saying(f"{box.home}/.podlab/pod/") or servers(box))


def kill_keeper(_: Sshd) -> None:
    for pid in keepers():
        os.kill(pid, signal.SIGKILL)


def kill_link(box: Sshd) -> None:
    assert box.kill_sessions() > 0


def has_begun(said: Said) -> bool:
    return any("text/html" in shown for shown in said.displayed.values())


@pytest.mark.parametrize("break_it", [kill_keeper, kill_link])
@pytest.mark.parametrize("sending", [True, False])
def test_broken_during_start(box: Sshd, break_it: Callable[[Sshd], None], sending: bool) -> None:
    """The link or the keeper dies while `model start` sends the model or waits: it ends ready, with one engine."""
    with Kernel() as kernel:
        message = kernel.begin(START)
        if sending:
            processes.wait_until(keepers, timeout_s=30, why="the keeper has started")
            if break_it is kill_link:
                processes.wait_until(box.session_pids, timeout_s=30, why="it has connected")
        else:
            processes.wait_until(lambda: has_work(box), timeout_s=60, why="the pod has begun")
        break_it(box)
        said = kernel.listen(message, until=lambda _: False)
        if said.error is not None:  # a break before anything was sent may be an error, but never a second engine
            assert said.error_name in ("LinkLost", "Unreachable", "KeeperError")
            kernel.run(START)
        (endpoint,) = kernel.endpoints()
        assert (endpoint["state"], endpoint["pod"]) == ("ready", "box")
        assert servers(box) == [endpoint["pid"]]


def test_kernel_and_keeper_killed_during_start(box: Sshd) -> None:
    """With nobody left to watch, the pod goes on by itself; the next kernel finds it, and starts no second one."""
    with Kernel() as first:
        first.begin(START)
        processes.wait_until(lambda: has_work(box), timeout_s=60, why="the pod has begun")
        first.kill()
        kill_keeper(box)
    with Kernel() as second:
        second.run(START)
        (endpoint,) = second.endpoints()
        assert endpoint["state"] == "ready"
        assert servers(box) == [endpoint["pid"]]


@pytest.mark.parametrize("break_it", [kill_keeper, kill_link])
def test_broken_during_chat(box: Sshd, break_it: Callable[[Sshd], None]) -> None:
    """A chat whose link dies is an error that keeps what had arrived; the engine serves on and the next chat works."""
    with Kernel() as kernel:
        kernel.run(START)
        (pid,) = servers(box)
        with processes.slowed(pid):
            message = kernel.begin(ENDLESS)
            kernel.listen(message, until=has_begun)
            break_it(box)
            said = kernel.listen(message, until=lambda _: False)
        assert said.error_name == "StreamBroken"
        assert said.error is not None and len(said.error) <= 3
        kernel.run("kept = %chat show")
        roles = [turn["role"] for turn in kernel.value("kept.to_dict()")["messages"]]
        assert roles == ["user", "assistant"]
        assert kernel.run("%%chat --max-tokens 8\nSay hello.").error is None
        assert servers(box) == [pid]


def test_link_lost_while_following_a_log(box: Sshd, tmp_path: Path) -> None:
    """`model logs --follow` over a broken link shows every byte of the log, once."""
    with Kernel() as kernel:
        kernel.run(START)
        (endpoint,) = kernel.endpoints()
        log = next(box.home.glob(f".podlab/pod/*/endpoints/{endpoint['id']}/log.1"))
        with Kernel() as watcher:
            message = watcher.begin("%model logs tiny --follow -n 100000")
            before = watcher.listen(message, until=lambda said: "\n" in said.stdout).stdout
            assert box.kill_sessions() > 0
            kernel.run("%%chat --max-tokens 8\nSay hello.")
            kernel.run("%model stop tiny")
            after = watcher.listen(message, until=lambda _: False)
            assert after.error is None
        assert (before + after.stdout).split() == log.read_text(errors="replace").split()
