"""Who holds GPU memory: strangers in a list, and what comes back at a stop. Simulated cards, over real SSH."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.commands.handlers import model
from podlab.commands.results import EndpointDetail, EndpointList, Outcome, document
from podlab.display.text import text
from podlab.lab import gpus, holders
from podlab.lab.facts import Facts, HealthCheck
from podlab.lab.supervisor import result_of
from podlab.lab.workspace import Workspace
from podlab.types import EndpointState, ForeignProcess, Pod, Step
from tests import machines
from tests.audiences import Silent
from tests.nvml import Gpu, SimulatedGpus
from tests.processes import running_child
from tests.remote.bench import SERVER

MIB = 2**20


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


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that podlab did not start."""
    with running_child(sys.executable, "-c", "input()") as process:
        yield process


@pytest.fixture
def served(workspace: Workspace, box: Pod, cards: SimulatedGpus) -> Iterator[Facts]:
    """A model server that is pinned on both cards; it holds what a test says."""
    side = workspace.side(box)
    step = Step("serve", (sys.executable, "-I", "-S", str(SERVER), "--port", "{port}", "--name", "tiny"))
    id = side.start(id=uuid.uuid4().hex, name="tiny", steps=(step,), model="tiny", engine="llamacpp", gpus=(0, 1),
                    health=HealthCheck("tiny")).facts.id  # fmt: skip
    *_, facts = side.watch(id, 20.0)
    yield facts
    result_of(side.stop(id, grace_s=2))
    cards.change([Gpu(), Gpu()])
    for file in cards.users_folder.iterdir():
        file.unlink()


def listed(workspace: Workspace) -> EndpointList:
    value = drive(model.list_endpoints(workspace, Namespace(on=None, all=False, files=False)), Silent()).value
    assert isinstance(value, EndpointList)
    return value


def stopped(workspace: Workspace) -> tuple[EndpointDetail, Outcome]:
    outcome = drive(model.stop(workspace, Namespace(name="tiny", all=False, on=None, dry_run=False)), Silent())
    assert isinstance(outcome.value, EndpointDetail)
    assert outcome.value.endpoint.state is EndpointState.STOPPED
    return outcome.value, outcome


def test_a_stranger_on_a_card_is_in_the_list(
    workspace: Workspace, box: Pod, served: Facts, cards: SimulatedGpus, stranger: subprocess.Popen[bytes]
) -> None:
    assert served.pid is not None
    cards.hold(0, served.pid, 1000)
    cards.hold(0, stranger.pid, 3000)
    cards.hold(1, stranger.pid, 2048)
    assert listed(workspace).foreign == (), "nobody ever saw that this pod has GPUs, so no driver was asked"
    gpus.sample(workspace, box)
    found = listed(workspace)
    name = Path(f"/proc/{stranger.pid}/comm").read_text().strip()
    assert found.foreign == (
        ForeignProcess("box", 0, stranger.pid, 3000 * MIB, name),
        ForeignProcess("box", 1, stranger.pid, 2048 * MIB, name),
    )
    assert [(endpoint.name, endpoint.state) for endpoint in found.endpoints] == [("tiny", EndpointState.READY)]
    shown = " ".join(text(found).split())
    assert f"1 process that is not podlab's holds 2.9 GiB of GPU 0 on box: pid {stranger.pid} {name}" in shown
    assert json.loads(json.dumps(document(found)))["foreign"][0]["pid"] == stranger.pid


def test_one_machine_under_two_names_tells_of_a_stranger_once(
    workspace: Workspace, box: Pod, cards: SimulatedGpus, stranger: subprocess.Popen[bytes]
) -> None:
    cards.hold(0, stranger.pid, 3000)
    looks = holders.Looks(workspace)
    looks.begin(box)
    looks.begin(Pod("again", "another-id", box.provider, box.address))
    workspace._transports["another-id"] = workspace.transport(box)
    assert [process.pod for process in holders.foreign(looks, ())] == ["box"]


def test_a_driver_that_hangs_does_not_hold_up_the_list(
    workspace: Workspace, box: Pod, served: Facts, cards: SimulatedGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "LIST_WAIT_S", 0.3)
    gpus.sample(workspace, box)
    cards.change([Gpu(), Gpu()], init="hang")
    found = listed(workspace)
    assert [endpoint.state for endpoint in found.endpoints] == [EndpointState.READY]
    assert found.foreign == ()


def test_a_stop_tells_what_came_back(workspace: Workspace, served: Facts, cards: SimulatedGpus) -> None:
    assert served.pid is not None
    cards.hold(0, served.pid, 20_000)
    cards.hold(1, served.pid, 12_000)
    detail, outcome = stopped(workspace)
    assert outcome.exit_code == 0
    freed = detail.freed
    assert freed is not None
    assert (freed.gpus, freed.held_bytes, freed.freed_bytes, freed.left) == ((0, 1), 32_000 * MIB, 32_000 * MIB, ())
    assert freed.measured == "processes"
    assert "31.2 GiB came back on GPU 0, 1" in text(detail)


def test_memory_that_stays_is_named_with_its_process(
    workspace: Workspace, served: Facts, cards: SimulatedGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that goes on counting a process that has ended."""
    monkeypatch.setattr(holders, "BACK_S", 0.0)
    assert served.pid is not None
    cards.change([Gpu(used_mib=500, processes=((served.pid, 500),)), Gpu()])
    cards.hold(1, served.pid, 700)
    detail, outcome = stopped(workspace)
    assert outcome.exit_code == 1
    freed = detail.freed
    assert freed is not None
    assert (freed.held_bytes, freed.freed_bytes) == (1200 * MIB, 700 * MIB)
    assert [process.pid for process in freed.left] == [served.pid]
    assert f"500 MiB are still held by pid {served.pid}" in freed.text


def test_where_the_driver_names_no_process_the_cards_are_compared(
    workspace: Workspace, served: Facts, cards: SimulatedGpus
) -> None:
    """As in most containers."""
    assert served.pid is not None
    cards.change([Gpu(without=("processes",)), Gpu(without=("processes",))])
    cards.hold(0, served.pid, 1000)
    detail, _ = stopped(workspace)
    assert detail.freed is not None
    assert (detail.freed.measured, detail.freed.freed_bytes) == ("cards", 1000 * MIB)


def test_a_pod_without_gpus_is_not_asked(workspace: Workspace, box: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    side = workspace.side(box)
    step = Step("serve", (sys.executable, "-I", "-S", str(SERVER), "--port", "{port}", "--name", "tiny"))
    id = side.start(id=uuid.uuid4().hex, name="tiny", steps=(step,), health=HealthCheck("tiny")).facts.id
    side.status([id])

    asked: list[object] = []
    monkeypatch.setattr(gpus, "cards", lambda *given: asked.append(given))
    detail, _ = stopped(workspace)
    assert detail.freed is None
    assert listed(workspace).foreign == ()
    assert asked == []
