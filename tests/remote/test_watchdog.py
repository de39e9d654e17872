"""What ends a pod: the start command as its first process, and a real server as its provider."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.renting import Policy
from tests.processes import wait_until
from tests.remote.company import KEY, POD, Company
from tests.remote.rented import FAST, LONG, WAIT_S, Rent, armed_line

# ------------------------------------------------------------------------------------------------ what ends a pod


def test_a_pod_that_nobody_ever_speaks_to_ends_itself(rent: Rent, company: Company, python: str) -> None:
    pod = rent(Policy(lease_s=1.0), pace=replace(FAST, grace_s=3.0), python=python)
    pod.start()

    assert pod.until_ended() == "terminate"

    pod.until_said("podlab: ending: lease: no word since it started")
    pod.until_said("terminate: accepted")


def test_a_pod_whose_computer_is_gone_ends_itself_after_its_lease(rent: Rent, company: Company) -> None:
    pod = rent(Policy(lease_s=4.0))
    pod.start()
    pod.until_said("podlab: armed")

    for _ in range(3):  # as long as there is word, it lives
        said = pod.beat()
        assert said.armed
        assert said.lease_left_s is not None and 3.0 < said.lease_left_s <= 4.0
        time.sleep(1.5)
    assert company.endings() == []

    assert pod.until_ended() == "terminate"
    pod.until_said("podlab: ending: lease: no word for 4 s")


def test_a_pod_ends_at_its_deadline_although_there_is_word(rent: Rent, company: Company) -> None:
    pod = rent()
    pod.start()
    pod.until_said("podlab: armed")
    pod.launch = replace(pod.launch, policy=replace(LONG, deadline_at=time.time() + 4.0), policy_serial=1)

    while company.ended_by is None:
        assert pod.beat().deadline_left_s is not None
        time.sleep(0.3)

    pod.until_said("podlab: ending: deadline")
    assert time.time() >= (pod.launch.policy.deadline_at or 0)


def test_a_pod_ends_at_the_deadline_of_its_start_command_although_nobody_comes(rent: Rent) -> None:
    pod = rent(replace(LONG, deadline_at=time.time() + 3.0))
    pod.start()

    assert pod.until_ended() == "terminate"
    pod.until_said("podlab: ending: deadline")


def test_a_pod_ends_when_its_money_is_spent_by_its_own_clock(rent: Rent, company: Company) -> None:
    pod = rent(replace(LONG, budget_usd=0.005), usd_per_hour=3.6)  # five seconds
    pod.start()
    pod.until_said("podlab: armed")
    assert armed_line(pod)["money_left_s"] <= 5.0

    assert pod.until_ended() == "terminate"
    pod.until_said("podlab: ending: money: its 0.005 USD are spent")


def test_a_pod_on_which_nothing_is_done_ends(rent: Rent, company: Company) -> None:
    pod = rent(replace(LONG, idle_s=3.0))
    pod.start()

    assert pod.until_ended() == "terminate"
    pod.until_said("podlab: ending: idle: nothing was done")


# ------------------------------------------------------------------------------------------------ a provider in trouble


@pytest.mark.parametrize("trouble", [401, 403, 404, 409, 429, 500, "hang", "drip", "html"])
def test_a_provider_that_does_not_end_it_is_asked_until_it_does(
    rent: Rent, company: Company, trouble: int | str
) -> None:
    ways = ("terminate", "delete", "stop")
    company.answers = dict.fromkeys(ways, trouble)
    pod = rent(Policy(lease_s=1.0), pace=replace(FAST, grace_s=1.0, request_s=1.0))
    pod.start()
    wait_until(lambda: set(company.endings()) == set(ways), timeout_s=WAIT_S, why=str(company.asked))
    wait_until(lambda: len(company.endings()) >= 5, timeout_s=WAIT_S, why=str(company.asked))
    assert company.ended_by is None or trouble == "html"

    company.answers = {}

    assert pod.until_ended() in ways


def test_a_provider_that_is_down_is_asked_until_it_is_back(rent: Rent, company: Company) -> None:
    company.stop()
    pod = rent(Policy(lease_s=1.0), pace=replace(FAST, grace_s=1.0))
    pod.start()
    pod.until_said("stop: no answer")
    pod.until_said("terminate: no answer", 2)
    pod.until_said("podlab: not armed: no answer")

    company.start()

    pod.until_ended()


def test_where_terminating_and_deleting_are_refused_it_stops_the_pod(rent: Rent, company: Company) -> None:
    company.answers = {"terminate": 403, "delete": 403}
    pod = rent(Policy(lease_s=1.0), pace=replace(FAST, grace_s=1.0))
    pod.start()

    assert pod.until_ended() == "stop"
    assert company.endings()[:3] == ["terminate", "delete", "stop"]


def test_word_in_time_calls_off_an_end_that_nobody_accepted(rent: Rent, company: Company) -> None:
    company.answers = dict.fromkeys(("terminate", "delete", "stop"), 500)
    pod = rent(replace(LONG, lease_s=60.0), pace=replace(FAST, grace_s=1.0))
    pod.start()
    pod.until_said("podlab: ending: lease")

    said = pod.beat()

    assert said.lease_left_s is not None and said.lease_left_s > 30
    pod.until_said("podlab: not ending any more")
    assert not pod.tell().ending


WITHOUT_PROCESSES = """
import encodings.idna, http.client, os, resource, socket, sys
sys.path.insert(0, sys.argv[1])
from podlab.remote import watchdog
os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    os.fork()
except OSError:
    print("no process can be had", flush=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(f"\\0podlab-test-{os.getpid()}")
told = {"launch": "x1", "policy": {"lease_s": 1.0}, "pace": {"grace_s": 0.001, "request_s": 20.0}}
dog = watchdog.Watchdog(watchdog.Config(told), os.getpid(), listener)
dog.end_if_due(watchdog.clock() + 60)
"""


def test_a_machine_whose_processes_are_used_up_is_ended_all_the_same(company: Company) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who may start nothing")
    env = {"HOME": "/", "RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": company.url}
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", WITHOUT_PROCESSES, root], env=env, capture_output=True, text=True)

    assert company.ended_by == "terminate", done.stdout + done.stderr
    assert "no process can be had" in done.stdout
