"""kill -9 in the middle of renting and of tending, with real processes: whoever is left, a pod is tended or it ends.

The company and its pods run in the test's own process, so that they outlive whatever is killed. A clock that cannot be
turned bounds what is looked at here: that a row is closed with proof takes minutes, and is shown on counted time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab.lab.guarding import ensure_keeper, guard
from podlab.lab.launches import Launch, Phase, all_launches, find
from podlab.lab.tender import tending_file
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.renting import Policy, Protection, RentalState
from podlab.sandbox.serve import Running
from podlab.settings import home
from podlab.transport import kept
from tests import processes
from tests.keeper.gone import wait_until_gone
from tests.kernels import Kernel
from tests.rentals import is_billed, open_sandbox, rent, until

ROOT = Path(__file__).parents[2]
LEASE_S = 8.0

RENT = """
import os, signal
from podlab.lab.workspace import Workspace
from tests import rentals

rentals.create(Workspace.open(), name="gpu", lease_s=8.0, ttl_s=600)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with open_sandbox(tmp_path / "sandbox") as opened:
        yield opened


def rent_and_die() -> None:
    """Rent in a process of its own, which is killed once the pod works."""
    done = subprocess.run(
        [sys.executable, "-c", RENT], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
        start_new_session=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, f"{done.stdout}{done.stderr}"


def kill_keeper() -> None:
    status = kept.status()
    if status is not None:
        os.kill(status.pid, signal.SIGKILL)
        wait_until_gone(status.pid)


def alive() -> list[str]:
    """The names of the pods that the company bills."""
    return [each.name for each in company("sandbox").list() if each.state is not RentalState.TERMINATED]


def heard_at(launch: Launch) -> float:
    """When its switch was heard last, by this computer's monotonic clock; long ago if never."""
    file = tending_file()
    note = file.notes().pod(launch.id)
    at = note.heard_at if note is not None else None
    return -1.0 if at is None else time.monotonic() - (file.steady() - at)


def is_protected(launch: Launch) -> bool:
    """As the ledger has it by now."""
    known = find(Ledger(), launch.id)
    return known is not None and guard(known, tending_file()).protection is Protection.PROTECTED


def killing(target: Any, method: str, *, after: bool) -> Callable[[], bool]:
    """Have the keeper killed when the company is asked that for the next time; whether it was."""
    original = getattr(target, method)
    killed = []

    def call(*words: object, **more: object) -> object:
        status = kept.status() if not killed else None
        found = original(*words, **more) if after or status is None else None
        if status is not None:
            killed.append(status.pid)
            os.kill(status.pid, signal.SIGKILL)
        return original(*words, **more) if found is None else found

    setattr(target, method, call)
    return lambda: bool(killed)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("method", ["listed", "terminate"])
def test_a_keeper_that_is_killed_in_a_round_is_made_up_for_by_the_next(
    sandbox: Running, method: str, after: bool
) -> None:
    workspace = Workspace.open()
    launch = rent(Policy(deadline_at=time.time() + 5))
    assert ensure_keeper(workspace) == ""
    was_killed = killing(sandbox.company, method, after=after)
    until(was_killed)
    assert ensure_keeper(workspace) == ""
    until(lambda: not is_billed(launch))

    (known,) = all_launches(Ledger())
    until(lambda: all_launches(Ledger())[0].phase is Phase.ENDING)
    assert known.rental_id == launch.rental_id


TEND = "import threading; print([t.name for t in threading.enumerate()])"


def test_a_kernels_own_brake_tends_and_ends_with_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a keeper: adopted at load, told to live on, undisturbed by an interrupt; killed, the pod ends itself."""
    rent_and_die()
    kill_keeper()
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    with Kernel() as kernel:
        (launch,) = all_launches(Ledger())
        until(lambda: guard(launch, tending_file()).tended_by == "kernel")
        kernel.interrupt()
        assert "podlab-brake" in kernel.run(TEND).stdout
        begun = time.monotonic()
        until(lambda: heard_at(launch) > begun + LEASE_S + 2)  # longer than it lives without word
        assert alive() == [launch.order_name]
        watched = guard(launch, tending_file())
        assert watched.protection is Protection.PARTLY
        assert watched.why == "its switch is armed, and the kernel tends it"

        kernel.kill()
        until(lambda: not alive(), 60)


def moments() -> list[float]:
    """Seconds from when the company has the pod to when the kernel dies."""
    dice = random.Random(4)
    return [round(dice.uniform(0, 8), 2) for _ in range(12 if os.environ.get("PODLAB_FULL") == "1" else 2)]


@pytest.mark.parametrize("after_s", [None, *moments()])
def test_the_next_load_tells_of_a_pod_whose_kernel_was_killed_in_a_create(
    after_s: float | None, sandbox: Running
) -> None:
    """None: as soon as the intent is written, whether or not an order follows."""
    with Kernel() as first:
        first.begin("%pod create gpu --provider sandbox --gpu A40 --ttl 1h --yes")
        until(lambda: all_launches(Ledger()), 60)
        if after_s is not None:
            until(lambda: sandbox.company.pods, 60)
            processes.wait_until(_passed(after_s), timeout_s=20, why="a moment passed")
        first.kill()
    kill_keeper()

    with Kernel(load=False) as second:
        said = second.run("%load_ext podlab")
        (told,) = [shown["text/plain"] for shown in said.displayed.values()]
        assert told.startswith("Warning: A rented pod may be billed: gpu (A40 of sandbox, simulated) ")
        assert "$0.41/h, $0.0" in told
        if after_s is not None:
            (launch,) = all_launches(Ledger())
            until(lambda: is_protected(launch), 60)
            second.run("found = %pod show gpu")
            assert second.value("found.to_dict()['rental']['protection']") == "protected"
            assert alive() == [launch.order_name]


def _passed(seconds: float) -> Callable[[], bool]:
    begun = time.monotonic()
    return lambda: time.monotonic() - begun >= seconds


def test_a_kernel_brings_back_a_keeper_that_was_killed() -> None:
    rent_and_die()
    with Kernel():
        (launch,) = all_launches(Ledger())
        until(lambda: guard(launch, tending_file()).tended_by == "keeper")
        status = kept.status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        wait_until_gone(status.pid)
        until(lambda: (now := kept.status()) is not None and now.pid != status.pid, 60)
        until(lambda: is_protected(launch))
    assert alive() == [launch.order_name]


def test_a_brake_keeps_no_kernel_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even in the middle of a round with a company that does not answer."""
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    rent(Policy(deadline_at=time.time() + 600))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes a connection and never says a word
        said = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "key": "rpa_nobody", "pid": 1}
        (home() / "sandbox.json").write_text(json.dumps(said))
        with Kernel() as kernel:
            connection, _ = silent.accept()
            kernel.client.shutdown()
            until(lambda: not kernel.manager.is_alive(), 20)
        connection.close()
