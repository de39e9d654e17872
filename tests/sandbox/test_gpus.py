"""The GPUs of a simulated pod: what podlab's own probe reads over SSH is what that pod's processes really use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.lab import gpus
from podlab.lab.supervisor import PodSide
from podlab.telemetry.lines import sample_from
from podlab.transport.base import Transport
from podlab.types import PodSample
from tests.sandbox_pods import Tenant, a_tenant, until

BURNER = """
import sys
held = bytearray(200 * 2**20)
print('burning', flush=True)
while True:
    sum(range(10000))
"""


@pytest.fixture(params=["nvml", "nvidia-smi"])
def tenant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tenant]:
    """Where there is a C compiler the probe loads a library, else it runs a program."""
    with a_tenant(tmp_path, gpu_library=request.param == "nvml") as found:
        yield found


def sample(transport: Transport) -> PodSample:
    with gpus.start(PodSide(transport), 0.0, cards_only=True) as probe:
        for line in probe:
            return sample_from(line, transport.pod)
    raise AssertionError("the probe said nothing")


def test_use_and_memory_rise_with_a_server_and_fall_when_it_is_stopped(
    tenant: Tenant, request: pytest.FixtureRequest
) -> None:
    source = request.node.callspec.params["tenant"]
    with tenant.reach(tenant.rent(gpu={"id": "NVIDIA L40S", "count": 2})) as pod:
        before = sample(pod)
        if source == "nvml" and before.source != "nvml":
            pytest.skip("no C compiler here")
        assert before.source == source
        assert [gpu.name for gpu in before.gpus] == ["NVIDIA L40S"] * 2
        assert [gpu.memory_total_bytes for gpu in before.gpus] == [48 * 2**30] * 2
        assert [gpu.memory_used_bytes for gpu in before.gpus] == [0, 0]

        with pod.start([sys.executable, "-c", BURNER], env={"CUDA_VISIBLE_DEVICES": "1"}) as burner:
            assert burner.read(60) == ("stdout", b"burning\n")

            def is_burning() -> PodSample | None:
                found = sample(pod)
                used = found.gpus[1].memory_used_bytes or 0
                return found if used > 190 * 2**20 and (found.gpus[1].utilization_percent or 0) > 5 else None

            busy = until(is_burning)
            assert busy.gpus[0].memory_used_bytes == 0, "the other card is left alone"
            pod.run(["kill", str((busy.gpus[1].processes or ())[0].pid)])

        def is_quiet() -> bool:
            one = sample(pod).gpus[1]
            return one.memory_used_bytes == 0 and (one.utilization_percent or 0) < 5 and not one.processes

        until(is_quiet)


def test_the_company_shows_what_a_pod_uses(tenant: Tenant) -> None:
    pod = tenant.rent()
    with tenant.reach(pod) as transport:
        with transport.start([sys.executable, "-c", BURNER]) as burner:
            burner.read(60)
            until(lambda: tenant.look(pod)["runtime"]["gpus"][0]["util"] > 5)
            assert tenant.look(pod)["runtime"]["memory"]["util"] >= 0
            transport.run(["pkill", "-f", "held = bytearray"], check=False)


def test_the_program_answers_in_the_forms_that_are_asked_for(tenant: Tenant) -> None:
    with tenant.reach(tenant.rent()) as pod:
        listed = pod.run(["nvidia-smi", "-L"]).text
        table = pod.run(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv"]).text
        header = pod.run(["nvidia-smi"]).text

    assert listed.startswith("GPU 0: NVIDIA RTX A5000 (UUID: GPU-")
    assert table.splitlines()[1].startswith("NVIDIA RTX A5000, 24576 MiB, 570.")
    assert "CUDA Version: 12.8" in header and "simulated" in header


def test_a_driver_may_not_work(tenant: Tenant) -> None:
    tenant.http.post("/sandbox/faults", json={"name": "no-cuda"})
    with tenant.reach(tenant.rent()) as pod:
        found = sample(pod)
        done = pod.run(["nvidia-smi"], check=False)

    assert found.gpus == () and done.status == 9 and "failed" in done.text
