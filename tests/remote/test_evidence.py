"""What the machine says of an end: collected beside real processes, from the kernel itself where it lets us, and from
files laid out as the kernel lays them where it does not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.engines.base import Cause, MachineEvidence
from podlab.engines.diagnosis import diagnose
from podlab.lab.facts import NOT_ASKED, Facts, exit_from
from podlab.lab.states import classify
from podlab.remote import evidence
from podlab.remote.evidence import Places, Witness
from podlab.types import EndpointState
from tests.processes import running_child
from tests.remote.bench import Bench, bench

V2, V1 = (
    "low 0\nhigh 0\nmax 7\noom 1\noom_kill {}\noom_group_kill 0\n",
    "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def laid_out(top: Path, groups: str, counters: dict[str, str], boot: str = evidence.INITIAL_PIDS) -> Places:
    """A /proc, a /sys/fs/cgroup and a /dev/kmsg of our own."""
    for name, text in {
        "proc/self/cgroup": groups,
        "kmsg": "",
        **{f"cgroup/{k}": v for k, v in counters.items()},
    }.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "proc/self/ns").mkdir()
    (top / "proc/self/ns/pid").symlink_to(boot)
    return Places(str(top / "cgroup"), str(top / "proc"), str(top / "kmsg"))


GROUPS = [
    pytest.param("0::/\n", "memory.events", V2, id="a container of version 2"),
    pytest.param("0::/user.slice/a.scope\n", "user.slice/a.scope/memory.events", V2, id="a session of version 2"),
    pytest.param("4:memory:/docker/abc\n0::/\n", "memory/docker/abc/memory.oom_control", V1, id="version 1"),
    pytest.param("9:cpu,cpuacct:/a\n4:memory:/docker/abc\n", "memory/memory.oom_control", V1, id="a container of 1"),
]


@pytest.mark.parametrize(("groups", "file", "text"), GROUPS)
def test_a_kill_in_its_memory_group_is_counted(tmp_path: Path, groups: str, file: str, text: str) -> None:
    """What was counted before it began is not its own."""
    places = laid_out(tmp_path, groups, {file: text.format(3)})
    with running_child("cat") as child:
        witness = Witness(child.pid, [], [], places)
        witness.look()
        assert witness.tell() == {"oom_kills": 0}
        (tmp_path / "cgroup" / file).write_text(text.format(5))
        assert witness.tell() == {"oom_kills": 2}


def test_a_kill_of_long_ago_is_another_ones(tmp_path: Path) -> None:
    """In a group of many processes what was killed a while ago was not the reason."""
    places, clock = laid_out(tmp_path, "0::/\n", {"memory.events": V2.format(0)}), Clock()
    witness = Witness(os.getpid(), [], [], places, clock)
    (tmp_path / "cgroup/memory.events").write_text(V2.format(1))
    witness.look()
    clock.now += evidence.RECENT_S / 2
    assert witness.tell() == {"oom_kills": 1}
    clock.now += evidence.RECENT_S
    assert witness.tell() == {"oom_kills": 0}
    (tmp_path / "cgroup/memory.events").write_text(V2.format(2))
    assert witness.tell() == {"oom_kills": 1}


def test_of_the_kernels_log_only_what_names_its_processes_and_gpus_is_told(tmp_path: Path) -> None:
    places = laid_out(tmp_path, "", {})
    card = tmp_path / "proc/driver/nvidia/gpus/0000:3b:00.0"
    for name, minor in (("0000:3b:00.0", 0), ("0000:af:00.0", 1)):
        (card.parent / name).mkdir(parents=True)
        (card.parent / name / "information").write_text(f"Model: \t NVIDIA H100\nDevice Minor: \t {minor}\n")
    (tmp_path / "kmsg").write_text("4,1,1,-;Memory cgroup out of memory: Killed process 77 (before)\n")
    witness = Witness(77, [0], [], places)
    ours = [
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task_memcg=/docker/a,task=python,pid=77,uid=0",
        "Memory cgroup out of memory: Killed process 77 (python) total-vm:9kB, anon-rss:8kB",
        "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:3b:00): 31, pid=77, name=python, Ch 00000008",
    ]
    others = [
        "Out of memory: Killed process 78 (browser) total-vm:9kB",
        "NVRM: Xid (PCI:0000:af:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:3b:00): 13, pid=78, name=python, Graphics Exception",
        "usb 1-1: new high-speed USB device",
    ]
    with (tmp_path / "kmsg").open("a") as log:
        for number, line in enumerate([line for pair in zip(ours, others, strict=True) for line in pair]):
            log.write(f"4,{number},{number},-;{line}\n SUBSYSTEM=pci\n")
    assert witness.kernel_lines() == ours
    assert diagnose([], 137, told({"kernel_lines": ours[:2]})).cause is Cause.KILLED
    assert diagnose([], 1, told({"kernel_lines": ours[2:3]})).cause is Cause.DRIVER_OR_DEVICE


def test_in_a_container_the_kernels_numbers_are_of_other_processes(tmp_path: Path) -> None:
    places = laid_out(tmp_path, "", {}, boot="pid:[4026533111]")
    witness = Witness(77, [], [], places)
    (tmp_path / "kmsg").write_text("4,1,1,-;Out of memory: Killed process 77 (browser)\n")
    assert witness.kernel_lines() == []


def test_what_cannot_be_read_is_not_claimed(tmp_path: Path) -> None:
    """No such files, files that are not ours to read, and nonsense in them."""
    nowhere = str(tmp_path / "nowhere")
    witness = Witness(os.getpid(), [], [nowhere], Places(nowhere, nowhere, nowhere))
    witness.look()
    assert witness.tell() == {}
    odd = laid_out(tmp_path, "0::/\nnonsense\n\n1\n", {"memory.events": "oom_kill many\n"})
    assert Witness(os.getpid(), [], [], odd).tell() == {}
    assert diagnose([], 137, told({})) == diagnose([], 137, NOT_ASKED)


def told(said: dict[str, object]) -> MachineEvidence:
    fields = {"status": 1, "signal": None, "at": 1.0, "step": "serve", "error": "", "evidence": said}
    return exit_from(fields).evidence


def test_its_children_are_its_own(tmp_path: Path) -> None:
    """Workers are what the kernel kills first, and their own children too."""
    code = "import subprocess, sys; subprocess.run(['sh', '-c', '(echo begun; exec cat); true'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"begun\n"
        if not Path(f"/proc/{child.pid}/task/{child.pid}/children").exists():
            pytest.skip("this kernel does not tell children")
        assert len(evidence.descendants(child.pid, "/proc")) == 2
        child.stdin.close()


def test_a_driver_that_fails_is_a_finding_and_one_that_answers_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert evidence.driver_error() == "", "there is no such program"
    said = "Failed to initialize NVML: Driver/library version mismatch"
    program.write_text(f"#!/bin/sh\necho '{said}'\nexit 18\n")
    program.chmod(0o755)
    witness = Witness(os.getpid(), [0], [], Places("", "", ""))
    assert witness.tell() == {"driver_error": said}
    assert diagnose([], 1, told({"driver_error": said})).cause is Cause.DRIVER_OR_DEVICE
    assert Witness(os.getpid(), [], [], Places("", "", "")).tell() == {}, "it uses no GPU"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    assert evidence.driver_error() == ""


# ------------------------------------------------------------------------------------------------ the whole way


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory group of 160 MiB, made in ours: the kernel kills what takes more."""
    counter = evidence.oom_counter(Places())
    top = Path(counter).parent if counter else Path("/sys/fs/cgroup")
    made = top / f"podlab-test-{os.getpid()}"
    try:
        made.mkdir()
        limit = made / ("memory.max" if (made / "memory.max").exists() else "memory.limit_in_bytes")
        limit.write_text(str(160 << 20))
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        pytest.skip(f"no memory group can be made here: {error.strerror}")
    yield made
    deadline = time.monotonic() + 30
    while made.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            made.rmdir()
        time.sleep(0.05)


def ended(pod: Bench, *options: str) -> Facts:
    return pod.until_ended(pod.serve(*options).facts.id)


def test_a_server_that_the_kernel_killed_for_memory_says_so(group: Path, tmp_path: Path) -> None:
    """A real kill by a real kernel; the supervisor starts in the group, and what it starts stays there."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho $$ >{group}/cgroup.procs\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    pod = bench(tmp_path / "pod", str(python))
    try:
        facts = ended(pod, "--hungry")
        assert facts.exit is not None
        assert facts.exit.signal == signal.SIGKILL
        assert facts.exit.evidence.oom_kills == 1
        state, cause, line = classify(facts, diagnose)
        assert (state, cause) == (EndpointState.CRASHED, Cause.KILLED.value)
        assert "memory" in line
        assert "memory ran out" in diagnose(facts.lines, 137, facts.exit.evidence).hint
        if os.access("/dev/kmsg", os.R_OK) and evidence.pids_are_the_kernels("/proc"):
            assert any(f"Killed process {facts.pid} " in line for line in facts.exit.evidence.kernel_lines)
    finally:
        pod.sweep()


def test_a_kill_that_was_not_for_memory_is_none(pod: Bench) -> None:
    facts = pod.ready()
    assert facts.pid is not None
    os.kill(facts.pid, signal.SIGKILL)
    after = pod.until_ended(facts.id)
    assert after.exit is not None
    assert after.exit.evidence.oom_kills in (None, 0)
    assert after.exit.evidence.kernel_lines == ()
    assert "memory ran out" not in classify(after, diagnose)[2]


def test_a_stop_that_was_asked_for_needs_no_evidence(pod: Bench) -> None:
    facts = pod.ready()
    for _ in pod.side.stop(facts.id):
        pass
    after = pod.facts(facts.id)
    assert after.exit is not None
    assert after.exit.evidence == NOT_ASKED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB, which counts as full."""
    where = tmp_path / "disk"
    where.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(where)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_explains_an_end_that_its_log_does_not(small_disk: Path) -> None:
    pod = bench(small_disk / "pod")
    try:
        facts = pod.ready()
        pod.tell(facts, "/exit/1")
        after = pod.until_ended(facts.id)
        assert after.exit is not None
        assert after.exit.evidence.disk_free_bytes is not None
        assert classify(after, diagnose)[1] == Cause.DISK_FULL.value
    finally:
        pod.sweep()
