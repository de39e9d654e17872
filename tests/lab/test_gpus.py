"""A pod's GPUs as a use case: sampled over SSH, streamed over a link that is cut, and as room for endpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.catalog.geometry import GpuRoom
from podlab.commands.drive import drive
from podlab.errors import BadArgument, PodlabError
from podlab.lab import gpus, pods
from podlab.lab.facts import Facts
from podlab.lab.workspace import Workspace
from podlab.providers.local import LOCAL
from podlab.types import GpuSample, Pod, PodSample
from tests import machines
from tests.audiences import Silent
from tests.nvml import Gpu, SimulatedGpus
from tests.processes import marked, wait_until

MIB = 2**20
GONE_S = 15.0


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> SimulatedGpus:
    """Of the far machine. Its tests leave two cards with nothing in them."""
    return SimulatedGpus(tmp_path_factory.mktemp("cards"), [Gpu(), Gpu()])


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory, cards: SimulatedGpus) -> Iterator[machines.Sshd]:
    """A real SSH server whose sessions see simulated GPUs."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    server = machines.start_sshd(tmp_path_factory.mktemp("machine"), environment=cards.environment())
    yield server
    server.stop()


def probes(cards: SimulatedGpus) -> list[int]:
    """A probe over SSH is two processes: the shell that found a Python, and that Python."""
    return marked(f"PODLAB_NVML_STATE={cards.environment()['PODLAB_NVML_STATE']}")


def test_one_sample_over_ssh_leaves_nothing_there(
    workspace: Workspace, box: Pod, cards: SimulatedGpus, sshd: machines.Sshd
) -> None:
    before = sorted(path.name for path in sshd.home.iterdir())
    found = gpus.sample(workspace, box)
    assert (found.pod, found.source, found.driver) == ("box", "nvml", "570.86.15")
    assert [gpu.memory_total_bytes for gpu in found.gpus] == [81559 * MIB] * 2
    assert sorted(path.name for path in sshd.home.iterdir()) == before
    wait_until(lambda: not probes(cards), timeout_s=GONE_S, why="the probe has ended")


def test_a_stream_goes_on_after_its_link_was_cut(
    workspace: Workspace, box: Pod, cards: SimulatedGpus, sshd: machines.Sshd
) -> None:
    lost: list[PodlabError] = []
    stream = gpus.stream(workspace, box, 0.25, on_lost=lost.append)
    samples = iter(stream)
    next(samples)
    first = probes(cards)
    assert len(first) == 2
    sshd.kill_sessions()
    assert next(sample for sample in samples if lost).gpus
    wait_until(lambda: not set(first) & set(probes(cards)), timeout_s=GONE_S, why="the probe of the cut link is gone")
    assert len(probes(cards)) == 2
    stream.close()
    assert list(samples) == []
    wait_until(lambda: not probes(cards), timeout_s=GONE_S, why="the probe of the closed stream is gone")


def test_a_slow_probe_notices_a_cut_link_too(
    workspace: Workspace, box: Pod, cards: SimulatedGpus, sshd: machines.Sshd
) -> None:
    """One that has nothing to write for a minute does not stay for a minute."""
    samples = iter(gpus.stream(workspace, box, 60.0))
    next(samples)
    assert len(probes(cards)) == 2
    sshd.kill_sessions()
    wait_until(lambda: not probes(cards), timeout_s=GONE_S, why="the probe is gone")
    samples.close()  # type: ignore[attr-defined]


def test_a_hanging_card_over_ssh(workspace: Workspace, box: Pod, cards: SimulatedGpus) -> None:
    stream = gpus.stream(workspace, box, 0.25)
    samples = iter(stream)
    next(samples)
    cards.change([Gpu(hang=True), Gpu(used_mib=5)])
    try:
        hit = next(sample for sample in samples if sample.gpus[0].error)
        assert hit.gpus[1].memory_used_bytes == 5 * MIB
        assert gpus.has_silent(hit)
    finally:
        stream.close()
        cards.change([Gpu(), Gpu()])
    wait_until(lambda: not probes(cards), timeout_s=GONE_S, why="the probe is gone although a thread of it hangs")


@pytest.mark.parametrize("interval_s", [0.0, 0.2, 61.0, float("nan")])
def test_a_rate_no_probe_keeps_is_refused(workspace: Workspace, interval_s: float) -> None:
    with pytest.raises(BadArgument, match="no interval") as caught:
        gpus.stream(workspace, LOCAL, interval_s)
    assert caught.value.hint == "Choose between 0.25 s and 60 s."


def test_rooms_are_what_is_free_now(workspace: Workspace, box: Pod, cards: SimulatedGpus) -> None:
    cards.hold(1, os.getpid(), 1000)
    try:
        assert gpus.rooms_from(gpus.sample(workspace, box), ()) == (
            GpuRoom(0, "NVIDIA H100 80GB HBM3", 81559 * MIB, 81559 * MIB),
            GpuRoom(1, "NVIDIA H100 80GB HBM3", 81559 * MIB, (81559 - 1000) * MIB),
        )
    finally:
        (cards.users_folder / f"1.{os.getpid()}").unlink()


def gpu(index: int, **more: object) -> GpuSample:
    given = {"name": "L4", "memory_total_bytes": 100, "memory_free_bytes": 60}
    return GpuSample(index, **(given | more))  # type: ignore[arg-type]


def endpoint(id: str, *on: int, alive: bool = True) -> Facts:
    return Facts(id, id, "endpoint", 1.0, gpus=on, alive=alive)


def test_rooms_count_living_endpoints_only() -> None:
    found = PodSample("lab", 1.0, "nvml", (gpu(0), gpu(1), gpu(2)))
    known = [endpoint("a", 0, 1), endpoint("b", 1), endpoint("c", 2, alive=False), endpoint("d")]
    assert [room.endpoints for room in gpus.rooms_from(found, known)] == [1, 2, 0]


def test_rooms_leave_out_what_nothing_can_be_promised_of() -> None:
    cards = (gpu(0, lost=True), gpu(1, memory_free_bytes=None), gpu(2), gpu(0, mig=True, parent=2), gpu(3))
    assert gpus.rooms_from(PodSample("lab", 1.0, "nvml", cards), []) == (GpuRoom(3, "L4", 100, 60),)


def test_owners_are_named(workspace: Workspace, box: Pod, cards: SimulatedGpus) -> None:
    from podlab.types import Step

    side = workspace.side(box)
    job = side.start(id="j-holder", name="holder", kind="job", steps=(Step("run", ("sleep", "60")),)).facts
    try:
        pid = side.status([job.id])[0].pid
        assert pid is not None
        cards.hold(0, pid, 300)
        found = gpus.with_owners(workspace, box, gpus.sample(workspace, box))
        (process,) = found.gpus[0].processes or ()
        assert (process.pid, process.owner, process.memory_bytes) == (pid, "holder", 300 * MIB)
    finally:
        from podlab.lab.supervisor import result_of

        result_of(side.stop(job.id, grace_s=1.0))
    assert gpus.sample(workspace, box).gpus[0].memory_used_bytes == 0


def test_through_the_keeper(
    sshd: machines.Sshd, cards: SimulatedGpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The keeper carries a probe like any command; when its client lets go the probe ends on the pod."""
    from podlab.transport import kept

    monkeypatch.setenv("PODLAB_KEEPER", "1")
    workspace = Workspace.open()
    try:
        address = f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"
        pod = drive(pods.add(workspace, "far", address, models_path=None, host_key=sshd.fingerprint()), Silent())[0]
        stream = gpus.stream(workspace, pod, 0.25)
        assert [gpu.index for gpu in next(iter(stream)).gpus] == [0, 1]
        stream.close()
        wait_until(lambda: not probes(cards), timeout_s=GONE_S, why="the probe is gone")
    finally:
        workspace.close()
        kept.stop_keeper()
