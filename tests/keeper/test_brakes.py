"""The brake in the keeper: with real processes, a simulated company on a socket, and kill -9."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.lab import kernel_brake
from podlab.lab.guarding import ensure_keeper, guard, hand_over, trouble
from podlab.lab.launches import Launch, Phase, find, new_id, policy_fields
from podlab.lab.tender import tending_file
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.providers.companies import company, identity
from podlab.renting import Order, Policy, Protection
from podlab.sandbox.serve import Running
from podlab.secrets import Secret
from podlab.transport import kept, kept_link
from tests.keeper.conftest import keepers
from tests.keeper.gone import wait_until_gone
from tests.processes import stopped_holder
from tests.rentals import GPU, ask, is_billed, open_sandbox, rent, until


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with open_sandbox(tmp_path / "sandbox") as opened:
        yield opened


@pytest.fixture
def workspace() -> Workspace:
    return Workspace.open()


def known(launch: Launch) -> Launch:
    found = find(Ledger(), launch.id)
    assert found is not None
    return found


def keeper_pid() -> int:
    status = kept.status()
    assert status is not None
    return status.pid


def is_tended() -> bool:
    owner = tending_file().owner()
    return owner is not None and owner.who == "keeper"


def test_a_pod_ends_at_its_deadline_with_no_client_left(workspace: Workspace) -> None:
    assert ensure_keeper(workspace) == ""
    launch = rent(Policy(deadline_at=time.time() + 4))
    until(lambda: not is_billed(launch))

    assert known(launch).phase is Phase.ENDING
    assert known(launch).brake == "keeper"


def test_a_process_that_was_stopped_while_it_wrote_keeps_no_pod_alive(workspace: Workspace) -> None:
    launch = rent(Policy(deadline_at=time.time() + 4))
    assert ensure_keeper(workspace) == ""
    until(is_tended)
    with stopped_holder(Path(os.environ["PODLAB_HOME"]) / "ledger.lock"):
        until(lambda: not is_billed(launch), timeout_s=90)
        assert known(launch).phase is Phase.LIVE, "which nobody could write down"
    until(lambda: known(launch).phase is Phase.ENDING)


def test_a_keeper_that_can_write_nothing_from_its_start_ends_pods_all_the_same(workspace: Workspace) -> None:
    """No file of its takes a byte, as on a full disk: neither its log, nor tending.json, nor the ledger."""
    launch = rent(Policy(deadline_at=time.time() + 4))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # which the keeper inherits
    try:
        assert ensure_keeper(workspace) == ""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    until(lambda: not is_billed(launch))
    assert known(launch).phase is Phase.LIVE, "which nobody could write down"
    assert tending_file().owner() is None


def test_the_keeper_stays_for_as_long_as_a_pod_may_be_billed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODLAB_KEEPER_IDLE_S", "0.5")
    launch = rent(Policy(deadline_at=time.time() + 6))
    assert ensure_keeper(workspace) == ""
    pid = keeper_pid()
    until(lambda: not is_billed(launch))
    assert keeper_pid() == pid
    status = kept.status()
    assert status is not None
    assert status.tends


def test_a_keeper_without_anything_rented_ends_as_before(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODLAB_KEEPER_IDLE_S", "0.5")
    assert ensure_keeper(workspace) == ""
    wait_until_gone(keeper_pid())


def test_after_kill_9_the_next_command_brings_it_back(workspace: Workspace) -> None:
    launch = rent(Policy(deadline_at=time.time() + 12))
    assert ensure_keeper(workspace) == ""
    until(is_tended)
    pid = keeper_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)

    subprocess.run(_podlab("pod", "list"), check=True)
    until(lambda: not is_billed(launch))
    assert known(launch).brake == "keeper"
    assert len(keepers(os.environ["PODLAB_HOME"])) == 1


def _podlab(*words: str) -> list[str]:
    return [sys.executable, "-c", "import podlab.cli; podlab.cli.main()", *words]


def test_an_intent_whose_asker_died_is_settled(workspace: Workspace) -> None:
    """The order was sent, and whoever sent it was killed before the answer came."""
    from podlab.providers.companies import company

    id, order = ask(Policy(deadline_at=time.time() + 600))
    company("sandbox").create(order)
    assert ensure_keeper(workspace) == ""

    def is_live() -> bool:
        found = find(Ledger(), id)
        return found is not None and found.phase is Phase.LIVE

    until(is_live)


def test_the_key_of_a_client_reaches_a_keeper_that_was_there_before(
    workspace: Workspace, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ensure_keeper(workspace) == ""
    pid = keeper_pid()
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_canary_of_a_key")
    monkeypatch.setenv("RUNPOD_API_BASE_URL", sandbox.url)
    assert ensure_keeper(workspace) == ""
    assert keeper_pid() == pid
    for path in Path(os.environ["PODLAB_HOME"]).rglob("*"):
        if path.is_file():
            assert b"rpa_canary_of_a_key" not in path.read_bytes(), path


def test_a_key_that_is_set_anew_takes_the_place_of_a_revoked_one(
    workspace: Workspace, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper has the revoked one from the environment of the shell that rented, which goes before a kept one."""
    monkeypatch.setenv("RUNPOD_API_BASE_URL", sandbox.url)
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_revoked_in_the_meantime")
    id = new_id()
    Ledger().append(
        "rent.ask", id, name="lab", order=f"order-{id}", provider="runpod", usd_per_hour="1.0",
        **policy_fields(Policy(deadline_at=time.time() + 1)),
    )  # fmt: skip
    rental = company("sandbox").create(Order(f"order-{id}", GPU, 1, "secure", image="runpod/pytorch:2.8.0"))
    Ledger().append("rent.live", id, rental=rental.id, usd_per_hour="1.0")
    launch = find(Ledger(), id)
    assert launch is not None and ensure_keeper(workspace) == ""
    until(lambda: any("401" in alarm for alarm in tending_file().notes().alarms))
    assert is_billed(launch)
    monkeypatch.delenv("RUNPOD_API_KEY")
    hand_over(workspace, "RUNPOD_API_KEY", Secret(sandbox.key))
    until(lambda: not is_billed(launch), timeout_s=90)


def rent_from_runpod(sandbox: Running, policy: Policy) -> Launch:
    """A pod rented from what is RunPod by its name, and the sandbox by its address."""
    id = new_id()
    Ledger().append(
        "rent.ask", id, name="lab", order=f"order-{id}", provider="runpod", usd_per_hour="1.0",
        key=identity(Secret(sandbox.key), sandbox.url), **policy_fields(policy),
    )  # fmt: skip
    rental = company("sandbox").create(Order(f"order-{id}", GPU, 1, "secure", image="runpod/pytorch:2.8.0"))
    Ledger().append("rent.live", id, rental=rental.id, usd_per_hour="1.0")
    found = find(Ledger(), id)
    assert found is not None
    return found


@pytest.mark.parametrize("other", ["key", "address"])
def test_a_shell_of_another_account_takes_the_key_of_no_open_pod_away(
    workspace: Workspace, sandbox: Running, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setenv("RUNPOD_API_BASE_URL", sandbox.url)
    monkeypatch.setenv("RUNPOD_API_KEY", sandbox.key)
    launch = rent_from_runpod(sandbox, Policy(deadline_at=time.time() + 8))
    assert ensure_keeper(workspace) == ""
    until(lambda: tending_file().notes().provider("runpod").answered_at)
    if other == "key":
        monkeypatch.setenv("RUNPOD_API_KEY", "rpa_of_another_account")
    else:
        monkeypatch.setenv("RUNPOD_API_BASE_URL", "http://127.0.0.1:9")
    subprocess.run(_podlab("pod", "list"), check=True)

    until(lambda: not is_billed(launch), timeout_s=60)
    assert known(launch).brake == "keeper"
    assert tending_file().notes().provider("runpod").problem == ""


def test_a_kernel_that_stands_by_gives_its_key_to_a_keeper_that_lacks_it(
    workspace: Workspace, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal without the key has started the keeper anew."""
    launch = rent_from_runpod(sandbox, Policy(deadline_at=time.time() + 1))
    assert ensure_keeper(workspace) == ""
    until(lambda: is_tended() and trouble(launch, tending_file()))
    assert is_billed(launch)
    monkeypatch.setenv("RUNPOD_API_BASE_URL", sandbox.url)
    monkeypatch.setenv("RUNPOD_API_KEY", sandbox.key)
    kernel_brake.start(workspace)
    try:
        until(lambda: not is_billed(launch), timeout_s=60)
    finally:
        kernel_brake.stop()
    assert known(launch).brake == "keeper"
    assert trouble(launch, tending_file()) == ""


KERNEL = """
import sys
from podlab.lab.kernel_brake import start
from podlab.lab.workspace import Workspace
start(Workspace.open())
sys.stdin.read()
"""


def test_without_a_keeper_a_kernel_that_lacks_the_key_gives_way_to_one_that_has_it(
    workspace: Workspace, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    launch = rent_from_runpod(sandbox, Policy(deadline_at=time.time() + 1))
    kernel_brake.start(workspace)
    until(lambda: tending_file().owner() is not None and trouble(launch, tending_file()))
    with_key = os.environ | {"RUNPOD_API_BASE_URL": sandbox.url, "RUNPOD_API_KEY": sandbox.key}
    other = subprocess.Popen([sys.executable, "-c", KERNEL], env=with_key, stdin=subprocess.PIPE)
    try:
        until(lambda: not is_billed(launch), timeout_s=150)
        assert known(launch).brake == "kernel"
        assert kept.status() is None
    finally:
        kernel_brake.stop()
        other.communicate(timeout=60)


def test_what_protects_a_pod_is_said_by_who_watches_it(workspace: Workspace) -> None:
    launch = rent(Policy(deadline_at=time.time() + 600))
    alone = guard(launch, tending_file())
    assert alone.protection is Protection.UNPROTECTED
    assert alone.worst.usd is None

    assert ensure_keeper(workspace) == ""
    until(lambda: guard(launch, tending_file()).tended_by == "keeper")
    watched = guard(known(launch), tending_file())
    assert watched.protection is Protection.PARTLY
    assert watched.why == "its switch was not heard yet, and the keeper tends it"

    os.kill(keeper_pid(), signal.SIGKILL)
    until(lambda: guard(launch, tending_file()).protection is Protection.UNPROTECTED)


def test_no_keeper_is_said(workspace: Workspace) -> None:
    workspace.override("keeper", "off")
    assert "switched off" in ensure_keeper(workspace)


def test_another_build_that_takes_over_goes_on_tending(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = rent(Policy(deadline_at=time.time() + 8))
    assert ensure_keeper(workspace) == ""
    until(is_tended)
    pid = keeper_pid()
    monkeypatch.setattr(kept_link, "build", lambda: "another")
    assert ensure_keeper(workspace) == ""
    assert keeper_pid() != pid

    until(lambda: (owner := tending_file().owner()) is not None and owner.pid != pid)
    until(lambda: not is_billed(launch))
    assert known(launch).brake == "keeper"


def test_a_keeper_that_is_told_to_stop_lets_another_tend_at_once(workspace: Workspace) -> None:
    rent(Policy(deadline_at=time.time() + 600))
    assert ensure_keeper(workspace) == ""
    until(is_tended)
    kept.stop_keeper()
    assert tending_file().owner() is None


def test_a_command_waits_for_no_provider_before_it_begins(workspace: Workspace, sandbox: Running) -> None:
    """The company is silent; the list of pods, which needs the ledger alone, comes all the same."""
    rent(Policy(deadline_at=time.time() + 600))
    sandbox.stop()
    done = subprocess.run(_podlab("config", "show"), capture_output=True, timeout=30)
    assert done.returncode == 0
    until(lambda: kept.status() is not None)
