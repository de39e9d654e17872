"""The switch on pods of the simulated company: rented over its API, spoken to by SSH, and ended by themselves."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from podlab.lab import heartbeat
from podlab.lab.launches import Launch, Phase
from podlab.lab.start_command import Pace, heard, start_command
from podlab.renting import Policy, RentalLine
from podlab.sandbox.faults import HTML, POD_PATH, Fault, refused
from podlab.sandbox.records import Pace as CompanyPace
from podlab.transport.ssh import SshTransport
from tests.sandbox_pods import Tenant, a_tenant, until

QUICK = Pace(grace_s=600.0, tick_s=0.2, look_s=0.5, request_s=10.0, retry_s=0.5, retry_limit_s=2.0, check_s=60.0)


@dataclass
class Lease:
    """A pod with a switch, and the launch it is of."""

    tenant: Tenant
    launch: Launch
    pod: str

    def lines(self) -> list[RentalLine]:
        return [RentalLine("", None, "container", text) for text in self.tenant.log(self.pod)]

    def until_armed(self) -> None:
        until(lambda: heard(self.lines()).armed)

    def until_gone(self) -> None:
        until(lambda: self.tenant.look(self.pod).get("status") in ("TERMINATED", 404))
        assert any("podlab: ending: " in line.text for line in self.lines())

    def reach(self) -> SshTransport:
        return self.tenant.reach(self.pod)


def lease(tenant: Tenant, policy: Policy, pace: Pace = QUICK, usd_per_hour: float = 0.5) -> Lease:
    launch = Launch(uuid.uuid4().hex[:12], "pod", "pod-1", "sandbox", time.time(), Phase.LIVE,
                    usd_per_hour=usd_per_hour, policy=policy)  # fmt: skip
    told = start_command(launch.id, policy, now=time.time(), usd_per_hour=usd_per_hour, pace=pace)
    env = {"PUBLIC_KEY": tenant.identity.with_suffix(".pub").read_text().strip(), **told.env}
    return Lease(tenant, launch, tenant.rent(args=shlex.join(told.argv), env=env))


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path, pace=CompanyPace(provision_s=0.2, start_s=0.2, runtime_s=0.2)) as found:
        yield found


def test_it_is_armed_keeps_a_pod_as_long_as_there_is_word_and_ends_it_when_the_computer_is_gone(
    tenant: Tenant,
) -> None:
    kept = lease(tenant, Policy(lease_s=6.0))
    kept.until_armed()
    with kept.reach() as transport:
        key = (tenant.folder(kept.pod) / "etc_ssh" / "ssh_host_ed25519_key.pub").read_text()
        assert len(heard(kept.lines()).fingerprints) == 1, key
        begun = time.monotonic()
        while time.monotonic() - begun < 9.0:  # longer than its lease
            said = heartbeat.beat(transport, kept.launch, now=time.time())
            assert said.armed
            assert heartbeat.difference(said, kept.launch, now=time.time()) == ""
            time.sleep(0.5)
        assert tenant.look(kept.pod)["status"] == "RUNNING"

    kept.until_gone()


def test_a_pod_that_nobody_reaches_ends_itself(tenant: Tenant) -> None:
    lease(tenant, Policy(lease_s=2.0), replace(QUICK, grace_s=4.0)).until_gone()


def test_a_switch_that_is_killed_from_inside_is_back_and_ends_the_pod_all_the_same(tenant: Tenant) -> None:
    kept = lease(tenant, Policy(lease_s=8.0))
    kept.until_armed()
    with kept.reach() as transport:
        heartbeat.beat(transport, kept.launch, now=time.time())
        for _ in range(2):
            transport.run(["sh", "-c", f"kill -9 $(pgrep -f '^[^ ]*python.* {config_of(kept)}')"], check=False)
            assert heartbeat.beat(transport, kept.launch, now=time.time()).has_switch

    kept.until_gone()


def config_of(kept: Lease) -> str:
    """A word of the switch's command line that no other has."""
    told = start_command(kept.launch.id, kept.launch.policy, now=0.0, usd_per_hour=0.5, pace=QUICK)
    return next(word for word in told.argv[2].split() if word.startswith("eyJsYXVuY2gi"))[:40]


def test_the_companys_own_faults_delay_the_end_and_do_not_prevent_it(tenant: Tenant) -> None:
    kept = lease(tenant, Policy(lease_s=2.0), replace(QUICK, grace_s=6.0, request_s=2.0))
    kept.until_armed()
    path = POD_PATH + "(/action)?"
    troubles = (lambda _company, _request, _go: HTML, refused(500, "no"), refused(403, "no"), refused(409, "no"))
    for method in ("POST", "DELETE"):
        tenant.running.rest.faults.add(*(Fault(trouble, method=method, path=path) for trouble in troubles))

    kept.until_gone()

    assert sum(fault.struck for fault in tenant.running.rest.faults.listed()) >= 4


def test_a_resumed_pod_is_not_ended_by_what_was_said_in_its_life_before(tenant: Tenant) -> None:
    kept = lease(tenant, Policy(lease_s=600.0))
    kept.until_armed()
    with kept.reach() as transport:
        kept.launch = replace(kept.launch, policy=Policy(deadline_at=time.time() + 6.0, lease_s=5.0), policy_serial=1)
        assert heartbeat.beat(transport, kept.launch, now=time.time()).policy_serial == 1
    assert tenant.act(kept.pod, "stop").status_code == 200
    until(lambda: tenant.look(kept.pod)["status"] == "EXITED")
    time.sleep(6.5)

    assert tenant.act(kept.pod, "start").status_code == 200
    until(lambda: sum("podlab: armed" in line.text for line in kept.lines()) >= 2)

    with kept.reach() as transport:
        said = heartbeat.tell(transport, kept.launch)
        assert said.armed
        assert said.policy_serial == -1
        assert said.deadline_left_s is None
        assert said.lease_left_s is not None and said.lease_left_s > 300
    assert tenant.look(kept.pod)["status"] == "RUNNING"
