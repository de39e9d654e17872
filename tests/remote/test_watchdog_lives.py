"""Switches that are killed, pods that are resumed, and who may speak to a switch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.renting import Policy
from tests.processes import saying, wait_until
from tests.remote.company import Company
from tests.remote.rented import WAIT_S, Rent, armed_line

# ------------------------------------------------------------------------------------------------ killed, resumed


def test_a_switch_that_is_killed_is_back_with_the_same_start_and_policy(rent: Rent, company: Company) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    pod.launch = replace(pod.launch, policy=Policy(idle_s=5000.0, lease_s=800.0), policy_serial=3)
    before = pod.beat()
    wait_until(lambda: pod.home.joinpath(".podlab/switch/state.json").exists(), timeout_s=WAIT_S, why="a state")
    pod.tell()
    wait_until(lambda: '"serial": 3' in pod.home.joinpath(".podlab/switch/state.json").read_text(),
               timeout_s=WAIT_S, why="the state on disk")  # fmt: skip

    for _ in range(3):
        (switch,) = pod.switches()
        os.kill(switch, signal.SIGKILL)
        wait_until(lambda gone=switch: pod.switches() not in ([], [gone]), timeout_s=WAIT_S, why="a new switch")

    said = pod.tell()
    assert said.policy_serial == 3
    assert said.idle_s == 5000.0
    assert said.up_s is not None and before.up_s is not None
    assert said.up_s >= before.up_s
    assert company.endings() == []


def test_a_switch_takes_no_notice_of_polite_signals(rent: Rent) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    (switch,) = pod.switches()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(switch, number)

    assert pod.tell().armed
    assert pod.switches() == [switch]


def test_a_second_switch_of_the_same_launch_refuses(rent: Rent) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    (switch,) = pod.switches()

    second = subprocess.Popen(pod.argv, env=pod.env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        pod.until_said("sshd begins")
        time.sleep(3.0)
        assert pod.switches() == [switch]
    finally:
        second.kill()
        second.wait()


def test_a_resumed_pod_has_a_fresh_lease_and_does_not_end_at_the_deadline_of_its_life_before(
    rent: Rent, company: Company
) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    pod.launch = replace(pod.launch, policy=Policy(deadline_at=time.time() + 8.0, lease_s=5.0), policy_serial=2)
    pod.beat()
    wait_until(lambda: '"serial": 2' in pod.home.joinpath(".podlab/switch/state.json").read_text(),
               timeout_s=WAIT_S, why="the state on disk")  # fmt: skip
    pod.kill()
    time.sleep(8.5)  # stopped past its deadline and its lease

    pod.start()
    pod.until_said("podlab: armed", 2)

    said = pod.tell()
    assert said.deadline_left_s is None
    assert said.policy_serial == -1
    assert said.lease_left_s is not None and said.lease_left_s > 400
    assert said.up_s is not None and said.up_s < WAIT_S
    assert company.endings() == []


def started(seconds_ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - seconds_ago)) + ".000Z"


def test_in_a_container_that_is_started_again_what_was_said_goes_on(rent: Rent, company: Company, python: str) -> None:
    company.started_at = started(100)
    pod = rent(python=python)
    pod.start()
    pod.until_said("podlab: armed")
    assert (pod.tell().up_s or 0.0) >= 100
    pod.launch = replace(pod.launch, policy=Policy(idle_s=5000.0, lease_s=800.0), policy_serial=2)
    pod.beat()
    wait_until(lambda: '"serial": 2' in pod.home.joinpath(".podlab/switch/state.json").read_text(),
               timeout_s=WAIT_S, why="the state on disk")  # fmt: skip
    pod.kill()

    pod.start()
    pod.until_said("podlab: armed", 2)

    said = pod.tell()
    assert (said.policy_serial, said.idle_s, said.lease_s) == (2, 5000.0, 800.0)
    assert (said.up_s or 0.0) >= 100
    assert company.endings() == []


def test_a_deadline_counts_from_the_pods_start_where_a_container_keeps_nothing(rent: Rent, company: Company) -> None:
    company.started_at = started(400)
    pod = rent(Policy(deadline_at=time.time() + 300.0, lease_s=900.0))

    pod.start()

    assert pod.until_ended() == "terminate"
    assert any("ending: deadline" in line for line in pod.said())


def test_what_ends_at_once_leaves_the_switch_the_time_to_end_the_pod(rent: Rent, company: Company) -> None:
    company.started_at = started(0)
    pod = rent(Policy(deadline_at=time.time() + 4.0))
    begin = pod.home / "image-start"
    begin.write_text("#!/bin/sh\necho it ends\n")
    begin.chmod(0o755)

    for _ in range(6):
        if company.ended_by is None:
            pod.start()
            assert pod.process is not None
            pod.process.wait(WAIT_S)
            pod.kill()

    assert company.ended_by == "terminate"


def test_the_switch_ends_with_its_container(rent: Rent) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    assert pod.process is not None

    pod.process.kill()
    pod.process.wait()

    wait_until(lambda: not pod.pids(), timeout_s=WAIT_S, why=f"{pod.pids()} are left")


def test_a_full_disk_is_told_and_the_switch_goes_on(rent: Rent, company: Company, own_home: Path) -> None:
    (own_home / ".podlab").write_text("a file where a folder should be")
    pod = rent(Policy(lease_s=5.0))
    shared = Path(f"/dev/shm/podlab-switch-{pod.launch.id}")
    shared.write_text("here too")
    try:
        pod.start()
        pod.until_said("podlab: armed")
        wait_until(lambda: "cannot keep its state" in pod.beat().detail, timeout_s=WAIT_S, why="the problem is told")
        pod.until_ended()
    finally:
        shared.unlink()


# ------------------------------------------------------------------------------------------------ who may speak to it


def test_word_for_another_launch_is_refused(rent: Rent) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    pod.launch = replace(pod.launch, id="another")

    said = pod.beat()

    assert not said.has_switch
    assert "no switch answers" in said.detail


def test_garbage_through_the_socket_changes_nothing(rent: Rent, own_home: Path) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    for words in (b"", b"\0\0\n", b"[]\n", b"{}\n", b'{"v":1,"op":"beat"}\n', b"x" * 100_000, b'{"v":1}', b"[" * 9000):
        with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
            link.connect(b"\0podlab-switch-" + pod.launch.id.encode())
            link.sendall(words)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(10.0)
            link.recv(4096)

    assert pod.tell().armed
    assert pod.tell().policy_serial == -1


def test_another_user_of_the_machine_is_not_heard(rent: Rent) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    script = (
        "import os,socket,sys;os.setuid(65534);s=socket.socket(socket.AF_UNIX);"
        f"s.connect(b'\\0podlab-switch-{pod.launch.id}');"
        f's.sendall(b\'{{"v":1,"op":"tell","launch":"{pod.launch.id}"}}\\n\');s.settimeout(10);'
        "sys.exit(len(s.recv(100)))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True)

    refused = (b"ConnectionResetError", b"BrokenPipeError")
    assert done.returncode == 0 or any(each in done.stderr for each in refused), done.stderr
    assert pod.tell().armed


def test_as_the_first_process_of_a_machine_of_its_own_it_looks_at_all_that_runs_there(
    rent: Rent, company: Company
) -> None:
    isolated = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("no process may have a table of processes of its own here")
    pod = rent(Policy(idle_s=4.0, lease_s=900.0))
    job = pod.home / "job.sh"
    job.write_text("#!/bin/sh\nwhile :; do head -c 400000 /dev/zero; sleep 0.05; done | cat >/dev/null\n")
    job.chmod(0o755)
    begin = pod.home / "image-start"  # with no HOME, so that only looking at everything finds its work
    begin.write_text(f"#!/bin/sh\nenv -u HOME {job} &\nexec sleep 900\n")
    begin.chmod(0o755)
    pod.argv = (*isolated, *pod.argv)
    del pod.env["PODLAB_SIMULATED"]
    pod.start()
    pod.until_said("podlab: armed")
    wait_until(lambda: pod.beat().busy == ("download",), timeout_s=WAIT_S, why=str(pod.tell()))
    life = armed_line(pod)["life"]
    assert life.split(".")[1] == "1"
    begun = pod.tell().up_s or 0.0
    while (pod.tell().up_s or 0.0) < begun + 6.0:
        assert company.endings() == []
        time.sleep(0.3)

    assert pod.process is not None
    for pid in saying(str(job)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    pod.until_ended()
