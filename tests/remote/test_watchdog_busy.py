"""What keeps a pod from being idle, each by the real thing."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.types import Step
from tests.nvml import Gpu, SimulatedGpus
from tests.processes import wait_until
from tests.remote.bench import Bench, bench
from tests.remote.company import Company
from tests.remote.rented import FAST, LONG, WAIT_S, Rent, Rented


def stays_busy(pod: Rented, company: Company, word: str) -> None:
    """It is busy with `word` and nothing else, and is not ended for far longer than it may be idle."""
    wait_until(lambda: word in pod.beat().busy, timeout_s=WAIT_S, why=f"busy with {word}: {pod.beat()}")
    begun = pod.tell()
    assert begun.busy == (word,)
    assert begun.up_s is not None
    while (said := pod.beat()).up_s is not None and said.up_s < begun.up_s + 6.0:
        assert said.busy == (word,)
        time.sleep(0.3)
    assert company.endings() == []


IDLE = replace(LONG, idle_s=3.0)
WAITING = replace(FAST, look_s=0.3)


@pytest.fixture
def lab(own_home: Path) -> Iterator[Bench]:
    """podlab's own side of the same pod: what it starts there has the same HOME."""
    made = bench(own_home / "podlab-pod")
    yield made
    made.sweep()


def test_a_running_command_keeps_it(rent: Rent, company: Company, lab: Bench) -> None:
    job = lab.job("sleep 600")
    pod = rent(IDLE)
    pod.start()

    stays_busy(pod, company, "command")

    for _ in lab.side.stop(job.id, grace_s=1.0):
        pass
    pod.until_ended()


def test_work_that_was_begun_over_ssh_by_hand_keeps_it(rent: Rent, company: Company, own_home: Path) -> None:
    """Without a terminal and without podlab, also where it has outlived its session."""
    pod = rent(IDLE)
    pod.start()
    env = {**os.environ, "SSH_CONNECTION": "203.0.113.1 50000 10.0.0.1 22"}
    script = "while :; do :; done"

    with subprocess.Popen(["sh", "-c", script], env=env, start_new_session=True) as working:
        stays_busy(pod, company, "command")
        working.kill()
    pod.until_ended()


def test_a_download_keeps_it(rent: Rent, company: Company, lab: Bench) -> None:
    step = Step("download", ("sh", "-c", "sleep 600"))
    job = lab.side.start(id="d-1", name="d-1", kind="job", steps=(step,))
    pod = rent(IDLE)
    pod.start()

    stays_busy(pod, company, "download")

    for _ in lab.side.stop(job.facts.id, grace_s=1.0):
        pass
    pod.until_ended()


def test_a_program_that_copies_files_keeps_it(rent: Rent, company: Company, own_home: Path) -> None:
    pod = rent(IDLE)
    pod.start()
    script = "while :; do head -c 400000 /dev/zero; sleep 0.05; done | cat >/dev/null"

    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as copying:
        try:
            stays_busy(pod, company, "download")
        finally:
            os.killpg(copying.pid, signal.SIGKILL)
    pod.until_ended()


def test_an_engine_that_loads_keeps_it(rent: Rent, company: Company, lab: Bench, tmp_path: Path) -> None:
    lab.serve("--gate", str(tmp_path / "never"))
    pod = rent(IDLE)
    pod.start()

    stays_busy(pod, company, "loading")


def test_tokens_keep_it_and_an_engine_that_only_stands_there_does_not(
    rent: Rent, company: Company, lab: Bench, tmp_path: Path
) -> None:
    page = tmp_path / "metrics"
    page.write_text('vllm:generation_tokens_total{model="m"} 1000\nvllm:num_requests_running 0\n')
    lab.ready("--metrics", str(page))
    pod = rent(IDLE)

    def chatting() -> None:
        for count in range(1001, 1400):
            if done.is_set():
                return
            page.with_suffix(".part").write_text(f"vllm:generation_tokens_total {count}\n")
            page.with_suffix(".part").rename(page)
            done.wait(0.1)

    done = threading.Event()
    talk = threading.Thread(target=chatting)
    talk.start()
    pod.start()
    try:
        stays_busy(pod, company, "tokens")
    finally:
        done.set()
        talk.join()
    pod.until_ended()


def test_requests_under_way_keep_it_although_no_token_comes(
    rent: Rent, company: Company, lab: Bench, tmp_path: Path
) -> None:
    page = tmp_path / "metrics"
    page.write_text("llamacpp:tokens_predicted_total 5\nllamacpp:requests_processing 1\n")
    lab.ready("--metrics", str(page))
    pod = rent(IDLE)
    pod.start()

    stays_busy(pod, company, "tokens")

    page.write_text("llamacpp:tokens_predicted_total 5\nllamacpp:requests_processing 0\n")
    pod.until_ended()


def test_an_engine_without_counters_is_busy_while_somebody_stays_connected(
    rent: Rent, company: Company, lab: Bench
) -> None:
    facts = lab.ready()
    pod = rent(IDLE)
    pod.start()
    assert facts.port is not None

    with socket.create_connection(("127.0.0.1", facts.port)):
        stays_busy(pod, company, "engine")
    pod.until_ended()


def test_a_shell_keeps_it_and_one_that_was_left_alone_does_not(rent: Rent, company: Company, own_home: Path) -> None:
    pod = rent(IDLE, pace=replace(FAST, quiet_s=8.0))
    ours, theirs = pty.openpty()
    env = {"HOME": str(own_home), "PATH": "/usr/bin:/bin"}
    shell = subprocess.Popen(["setsid", "--ctty", "sh", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    try:
        pod.start()
        wait_until(lambda: "shell" in pod.beat().busy, timeout_s=WAIT_S, why=str(pod.said()))
        begun = time.monotonic()
        pod.until_ended()
        assert time.monotonic() - begun > 4.0  # quiet for 8 s, then idle for 3, less what the first look took
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
        os.close(theirs)


def test_a_gpu_at_work_keeps_it_and_one_that_does_not_tell_is_not_busy(
    rent: Rent, company: Company, tmp_path: Path
) -> None:
    cards = SimulatedGpus(tmp_path / "gpus", [Gpu(without=("utilization",)), Gpu(utilization=80)])
    pod = rent(IDLE, env=cards.environment())
    pod.start()

    stays_busy(pod, company, "gpu")

    cards.change([Gpu(without=("utilization",)), Gpu(utilization=2)])
    pod.until_ended()


def test_a_driver_that_hangs_holds_up_nothing(rent: Rent, company: Company, tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path / "gpus", [Gpu(hang=True)])
    pod = rent(IDLE, env=cards.environment())
    pod.start()

    pod.until_ended()


def test_a_gpu_that_only_nvidia_smi_shows_keeps_it(rent: Rent, company: Company) -> None:
    pod = rent(IDLE)
    program = pod.programs / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 55\n")
    program.chmod(0o755)
    pod.start()

    stays_busy(pod, company, "gpu")


def test_commands_of_another_pod_on_the_same_machine_are_not_its_own(
    rent: Rent, company: Company, lab: Bench, tmp_path: Path
) -> None:
    lab.job("sleep 600")
    other = tmp_path / "other"
    other.mkdir()
    pod = rent(IDLE, home=other)
    pod.start()

    pod.until_ended()
