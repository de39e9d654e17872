"""Links, keepers and kernels that die while something runs on an SSH pod: nothing is lost, nothing runs twice."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.faults import machine
from tests.kernels import Kernel, Said
from tests.machines import Sshd

COUNT = 40
COUNTING = f"%%pod run --on box\nfor i in $(seq 1 {COUNT}); do echo line $i; sleep 0.1; done; echo done >> $HOME/ended"
COUNTED = "".join(f"line {number}\n" for number in range(1, COUNT + 1))


def keepers() -> list[int]:
    """Keeper processes of this test's PODLAB_HOME."""
    return [pid for pid in processes.saying("podlab.keeper") if pid in processes.marked(os.environ["PODLAB_HOME"])]


@pytest.fixture(autouse=True)
def box(sshd: Sshd) -> Iterator[Sshd]:
    """The pod `box`, reached through a keeper of the test's own, which is ended afterwards."""
    (sshd.home / "ended").unlink(missing_ok=True)
    machine.add(sshd)
    yield sshd
    for pid in keepers():
        os.kill(pid, signal.SIGTERM)


def ended(box: Sshd) -> int:
    """How many times the counting script came to its end."""
    try:
        return len((box.home / "ended").read_text().splitlines())
    except FileNotFoundError:
        return 0


def some_lines(said: Said) -> bool:
    return "line 5\n" in said.stdout


def test_link_lost_during_a_job(box: Sshd) -> None:
    """sshd's children die under `pod run`: every line still comes, once, and the script ran once."""
    with Kernel() as kernel:
        message = kernel.begin(COUNTING)
        before = kernel.listen(message, until=some_lines).stdout
        assert box.kill_sessions() > 0
        after = kernel.listen(message, until=lambda _: False)
        assert after.error is None
        assert before + after.stdout == COUNTED
        assert ended(box) == 1


def test_keeper_killed_during_a_job(box: Sshd) -> None:
    """kill -9 on the keeper under `pod run`: another one starts, every line still comes, once."""
    with Kernel() as kernel:
        message = kernel.begin(COUNTING)
        before = kernel.listen(message, until=some_lines).stdout
        (keeper,) = keepers()
        os.kill(keeper, signal.SIGKILL)
        after = kernel.listen(message, until=lambda _: False)
        assert after.error is None
        assert before + after.stdout == COUNTED
        assert ended(box) == 1


def test_kernel_killed_during_a_job(box: Sshd) -> None:
    """The job outlives the kernel; a new kernel attaches and sees all it said, from the first byte."""
    with Kernel() as first:
        first.listen(first.begin(COUNTING), until=some_lines)
        first.kill()
    with Kernel() as second:
        second.run("jobs = %pod jobs")
        (job,) = [job for job in second.value("jobs.to_dict()")["jobs"] if job["state"] == "running"]
        assert second.run(f"%pod attach {job['id']}").stdout == COUNTED
        assert ended(box) == 1


def test_kernel_and_keeper_killed_during_push(box: Sshd, tmp_path: Path) -> None:
    """A killed push leaves the old file; repeating it goes on from what had arrived and ends verified."""
    data = os.urandom(1 << 20) * 48
    source = tmp_path / "weights.bin"
    source.write_bytes(data)
    target = box.home / "weights.bin"
    target.write_bytes(b"old")
    with Kernel() as first:
        first.begin(f"%pod push --on box {source} {target}")
        processes.wait_until(
            lambda: any(path.stat().st_size > 1 << 20 for path in box.home.glob(".podlab-*.part")),
            timeout_s=30, why="some of it arrived",
        )  # fmt: skip
        first.kill()
        for pid in keepers():
            os.kill(pid, signal.SIGKILL)
    assert (
        target.read_bytes() == b"old" or hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(data).digest()
    )
    with Kernel() as second:
        second.run(f"moved = %pod push --on box {source} {target}")
        assert second.value("moved.to_dict()")["total_bytes"] == len(data)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert not list(box.home.glob(".podlab-*.part"))


def test_interrupt_ends_the_job(box: Sshd) -> None:
    """The stop button ends what `pod run` had started, on the pod too."""
    with Kernel() as kernel, processes.silent_command() as line:
        message = kernel.begin(f"%pod run --on box {line}")
        processes.wait_until(lambda: processes.running(line), timeout_s=60, why="it runs")
        kernel.interrupt()
        assert kernel.listen(message, until=lambda _: False).error is not None
        processes.wait_until(lambda: not processes.running(line), timeout_s=60, why="it ended on the pod")
