"""The dead-man switch on a simulated pod: it arms itself, is heard in the container's log, and ends the pod."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.lab.start_command import Pace, heard, start_command
from podlab.quoting import shell_line
from podlab.renting import Policy, RentalLine
from tests.sandbox_pods import Tenant, a_tenant, until


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as found:
        yield found


def rent(tenant: Tenant, launch: str, policy: Policy, **more: str) -> str:
    pace = Pace(grace_s=policy.lease_s, tick_s=0.2, retry_s=0.5, check_s=5)
    command = start_command(launch, policy, now=time.time(), usd_per_hour=0.3, pace=pace, **more)
    key = tenant.identity.with_suffix(".pub").read_text().strip()
    return tenant.rent(args=shell_line(command.argv), env={**command.env, "PUBLIC_KEY": key})


def lines(tenant: Tenant, pod: str) -> list[RentalLine]:
    book = tenant.running.company.books[pod].read(source=None, after=None, tail=1000)
    return [RentalLine(line.id, line.at / 1e9, line.source, line.text) for line in book]


def test_a_switch_arms_itself_and_the_log_tells_the_host_key(tenant: Tenant) -> None:
    pod = rent(tenant, "sandbox-switch-one", Policy(lease_s=600))

    until(lambda: heard(lines(tenant, pod)).armed)
    told = heard(lines(tenant, pod))
    with tenant.reach(pod) as transport:
        assert transport.run(["echo", "here"]).text == "here\n"
    assert len(told.fingerprints) == 1 and told.fingerprints[0].startswith("SHA256:")


def test_a_pod_without_word_ends_itself(tenant: Tenant) -> None:
    pod = rent(tenant, "sandbox-switch-two", Policy(lease_s=2))

    until(lambda: tenant.http.get(f"/v2/pods/{pod}").status_code == 404)
    assert any("podlab: ending: " in line.text for line in lines(tenant, pod))
    until(lambda: tenant.machine(pod) is None)


def test_a_pod_whose_container_is_started_again_and_again_ends_itself(tenant: Tenant, tmp_path: Path) -> None:
    begin = tmp_path / "image-start"
    begin.write_text("#!/bin/sh\nsleep 1\n")
    begin.chmod(0o755)
    pod = rent(tenant, "sandbox-switch-three", Policy(lease_s=15), image_start=str(begin))

    until(lambda: tenant.http.get(f"/v2/pods/{pod}").status_code == 404)

    said = [line.text for line in lines(tenant, pod)]
    assert any("podlab: ending: lease: no word since it started" in line for line in said)
    assert sum("starting it again" in line for line in said) >= 1
