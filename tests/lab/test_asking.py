"""Whether an order may still be sent, with real processes that are stopped, killed and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.durable import is_locked, locked
from podlab.errors import StateDamaged
from podlab.lab import ending
from podlab.lab.asking import LockedAsking
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.market import Market
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.settings import home
from tests.rentals import open_sandbox, until

ROOT = Path(__file__).parents[2]

RENT = """
import os, signal, sys
from podlab.lab.workspace import Workspace
from podlab.providers.runpod import RunpodProvider
from tests import rentals

send = RunpodProvider.create

def stopped(self, order):
    os.kill(os.getpid(), signal.SIGSTOP)
    return send(self, order)

RunpodProvider.create = stopped
rentals.create(Workspace.open(), name="gpu", ttl_s=600)
"""


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path) -> Iterator[None]:
    with open_sandbox(tmp_path / "sandbox"):
        yield


@pytest.fixture
def asker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped right before it sends its order."""
    process = subprocess.Popen(
        [sys.executable, "-c", RENT], env=os.environ | {"PYTHONPATH": str(ROOT), "PODLAB_KEEPER": "0"}, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    until(lambda: _is_stopped(process.pid))
    yield process
    process.kill()
    process.wait(20)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def row() -> Launch:
    (launch,) = all_launches(Ledger())
    return launch


def look() -> Launch:
    """As another process of this computer does, at any time."""
    return ending.prove(Market.here(), row())


def test_the_row_of_a_process_that_is_stopped_before_its_order_is_left_open_and_its_pod_is_found(
    asker: subprocess.Popen[bytes],
) -> None:
    assert LockedAsking().is_held(row().id)
    assert (look().phase, look().unclear, look().absent) == (Phase.ASKED, None, ())

    asker.send_signal(signal.SIGCONT)
    until(lambda: row().rental_id)

    assert [(pod.id, pod.name) for pod in company("sandbox").list()] == [(row().rental_id, row().order_name)]


def test_a_process_that_was_killed_sends_no_order_any_more(asker: subprocess.Popen[bytes]) -> None:
    asker.kill()
    asker.wait(20)

    assert not LockedAsking().is_held(row().id)
    after = look()

    assert (after.phase, after.why, after.absent) == (Phase.ASKED, ending.GONE, ())
    assert after.unclear is not None and after.unclear.since(after.asked) > 0
    assert look().unclear == after.unclear
    assert list((home() / "asking").iterdir()) == []


def test_one_that_is_given_up_is_asked_for_no_longer() -> None:
    asking = LockedAsking()
    with pytest.raises(KeyboardInterrupt), asking.held("it"):
        assert asking.is_held("it") and not asking.is_held("another")
        raise KeyboardInterrupt

    assert not asking.is_held("it")


def test_a_lock_that_cannot_be_looked_at_is_nobodys_word(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StateDamaged, match="link"):
        is_locked(tmp_path / "link")
    with locked(tmp_path / "file"):
        assert is_locked(tmp_path / "file")
    assert not is_locked(tmp_path / "file")
