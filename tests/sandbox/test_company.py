"""The company's logic on a clock that the test turns: states, money, lags, keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.sandbox.catalogue import MONTH_S
from podlab.sandbox.company import Company
from podlab.sandbox.meter import buckets
from podlab.sandbox.records import Caller, PodRecord, Problem, Status, Wanted
from tests.clock import Clock

WANTED = Wanted("a-pod-1a2b", "an/image", "NVIDIA A40", disk_gb=10, ports=("22/tcp",))


def refused(status: int) -> pytest.RaisesExc[Problem]:
    return pytest.RaisesExc(Problem, check=lambda problem: problem.status == status)


def run(company: Company, clock: Clock, wanted: Wanted = WANTED) -> PodRecord:
    pod = company.create(wanted)
    clock.turn(60)
    company.advance()
    clock.turn(10)
    return company.get(pod.id)


def test_a_pod_says_that_it_runs_before_anything_of_it_does(company: Company, clock: Clock) -> None:
    pod = company.create(WANTED)

    assert pod.status is Status.PROVISIONING
    clock.turn(20)
    assert company.get(pod.id).status is Status.STARTING
    clock.turn(40)
    assert (company.get(pod.id).status, pod.up_since, pod.public_ports) == (Status.RUNNING, None, {})
    clock.turn(10)
    assert company.get(pod.id).up_since == clock() and "22/tcp" in pod.public_ports


def test_a_restart_and_a_start_give_another_public_port(company: Company, clock: Clock) -> None:
    pod = run(company, clock)
    ports = {pod.public_ports["22/tcp"]}

    company.act(pod.id, "restart")
    assert pod.status is Status.RUNNING and not pod.public_ports
    clock.turn(10)
    ports.add(company.get(pod.id).public_ports["22/tcp"])
    company.act(pod.id, "stop")
    company.act(pod.id, "start")
    clock.turn(60)
    company.advance()
    clock.turn(10)
    ports.add(company.get(pod.id).public_ports["22/tcp"])

    assert len(ports) == 3


def test_an_action_out_of_turn_and_one_on_a_locked_pod_are_conflicts(company: Company, clock: Clock) -> None:
    pod = run(company, clock)

    with refused(409):
        company.act(pod.id, "start")
    pod.locked = True
    with refused(409):
        company.act(pod.id, "stop")
    with refused(409):
        company.terminate(pod.id)
    assert pod.status is Status.RUNNING


def test_stock_runs_out_and_comes_back(company: Company, clock: Clock) -> None:
    company.spend_limit_usd_per_hour = company.balance_usd = 1000.0
    community = replace(WANTED, cloud="COMMUNITY", gpu_count=3)
    first = company.create(community)

    with refused(400):
        company.create(community)
    with refused(400):
        company.create(replace(WANTED, data_centers=("AP-JP-1",)))
    with refused(400):
        company.create(replace(WANTED, min_cuda="12.11"))
    company.terminate(first.id)
    company.create(community)


def test_a_stopped_pod_whose_gpu_was_taken_cannot_start(company: Company, clock: Clock) -> None:
    pod = run(company, clock, replace(WANTED, cloud="COMMUNITY", gpu_count=2))
    company.act(pod.id, "stop")
    company.create(replace(WANTED, cloud="COMMUNITY", gpu_count=2))

    with refused(400):
        company.act(pod.id, "start")
    assert pod.status is Status.EXITED


def test_a_running_pod_costs_its_gpu_and_disk_and_a_stopped_one_twice_its_disk(company: Company, clock: Clock) -> None:
    pod = company.create(WANTED)
    clock.turn(3600)
    running = company.pod_usd(pod.id)
    company.act(pod.id, "stop")
    clock.turn(3600)
    stopped = company.pod_usd(pod.id) - running
    company.terminate(pod.id)
    clock.turn(3600)

    assert running == pytest.approx(0.40 + 10 * 0.10 * 3600 / MONTH_S)
    assert stopped == pytest.approx(10 * 0.20 * 3600 / MONTH_S)
    assert company.pod_usd(pod.id) == pytest.approx(running + stopped)
    assert company.balance_usd == pytest.approx(25.0 - running - stopped)


def test_what_is_billed_by_the_hour_is_what_it_cost_in_all(company: Company, clock: Clock) -> None:
    began = clock()
    pod = company.create(WANTED)
    clock.turn(5000)
    company.terminate(pod.id)
    clock.turn(5000)
    found = list(company.meter.amounts(buckets("hour", began, clock()), pod.id))

    assert len(found) in (2, 3) and all(each.ends_at - each.begins_at == 3600 for each in found)
    assert sum(each.usd for each in found) == pytest.approx(company.pod_usd(pod.id))


def test_an_empty_account_loses_its_pods_at_that_moment_but_not_its_volume(company: Company, clock: Clock) -> None:
    began = clock()
    company.balance_usd = 1.0
    volume = company.add_volume("data", 10, "EU-SE-1", None)
    kept = company.create(replace(WANTED, network=(volume.id, "/workspace")))
    lost = company.create(WANTED)
    clock.turn(86400)
    company.advance()

    assert (kept.status, lost.status) == (Status.EXITED, Status.TERMINATED)
    assert lost.terminated_at == pytest.approx(began + 3600 / 0.8, rel=0.01)
    assert volume.id in company.assets.volumes
    with refused(402):
        company.create(WANTED)


def test_no_pod_starts_beyond_the_spend_limit(company: Company) -> None:
    company.spend_limit_usd_per_hour = 0.5
    company.create(WANTED)

    with refused(400):
        company.create(WANTED)


def test_a_new_pod_may_be_unlisted_and_not_found_for_a_while(company: Company, clock: Clock) -> None:
    company.pace = replace(company.pace, listing_lag_s=90, read_lag_s=5, gone_lag_s=30)
    pod = company.create(WANTED)

    with refused(404):
        company.get(pod.id)
    with refused(404):
        company.terminate(pod.id)
    clock.turn(5)
    assert company.get(pod.id) is pod and company.listed() == ()
    clock.turn(85)
    assert company.listed() == (pod,)
    company.terminate(pod.id)
    assert company.listed() == (pod,)
    clock.turn(30)
    assert company.listed() == ()


def test_a_pods_own_key_ends_with_it(company: Company, clock: Clock) -> None:
    pod = company.create(WANTED)

    assert company.who(pod.key) == Caller(pod.id) and company.who(company.key) == Caller()
    company.terminate(pod.id)
    assert company.who(pod.key) is None


def test_billing_can_be_faster_than_the_clock(clock: Clock) -> None:
    company = Company(now=clock, billing_speed=60)
    pod = company.create(WANTED)
    clock.turn(60)

    assert company.pod_usd(pod.id) == pytest.approx(0.40, rel=0.01)
