"""The sandbox as a process of its own: opened once, outliving its starter, ended with all that its pods run."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from podlab.errors import BadArgument, NotFound
from podlab.providers.companies import company
from podlab.renting import OfferQuery
from podlab.sandbox import control
from podlab.sandbox.fault_names import Ask
from podlab.sandbox.place import Place
from tests.sandbox_pods import until

BODY = {"name": "a-pod-1a2b", "image": "an/image", "gpu": {"id": "NVIDIA A40"}, "ports": ["22/tcp"]}
LOOP = "while :; do sleep 1; done"


@pytest.fixture(autouse=True)
def closed_afterwards(own_home: Path) -> Iterator[None]:
    yield
    control.down()


def customer() -> httpx2.Client:
    said = Place.here().read()
    assert said is not None
    return httpx2.Client(base_url=said.url, headers={"Authorization": f"Bearer {said.key}"}, timeout=60)


def pids_with(text: str) -> list[int]:
    """Processes whose command line holds a text."""
    told = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in told.splitlines() if text in line]


def test_it_is_opened_once_and_closed_for_good() -> None:
    assert control.status() is None
    opened = control.up(speed=60)
    again = control.up()
    file = Place.here().file

    assert (opened.was_open, again.was_open) == (False, True) and again.pid == opened.pid and again.speed == 60
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = control.status()
    assert found is not None and (found.balance_usd, found.pods, found.speed) == (25.0, 0, 60)
    assert company("sandbox").simulated and len(company("sandbox").list()) == 0
    assert control.down() is True and control.down() is False
    assert not file.exists()
    with pytest.raises(NotFound, match="not open"):
        company("sandbox").account()


def test_it_outlives_its_starter_and_its_pods_end_with_it() -> None:
    starter = subprocess.run(
        [sys.executable, "-c", "from podlab.sandbox import control; print(control.up().pid)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    mark = f"mark-{os.getpid()}-{starter.stdout.strip()}"
    with customer() as http:
        http.post("/v2/pods", json={**BODY, "args": shlex.join(["sh", "-c", LOOP, mark])})
        until(lambda: pids_with(mark))
    assert control.down()

    assert pids_with(mark) == []


def test_killed_by_force_it_takes_its_pods_along_and_can_be_opened_again() -> None:
    opened = control.up()
    mark = f"mark-{os.getpid()}-{opened.pid}"
    with customer() as http:
        http.post(
            "/v2/pods", json={**BODY, "args": shlex.join(["sh", "-c", f'setsid sh -c "{LOOP}" $0 & {LOOP}', mark])}
        )
        until(lambda: len(pids_with(mark)) >= 2)
    os.kill(opened.pid, signal.SIGKILL)

    until(lambda: not pids_with(mark))
    assert control.status() is None
    assert control.up().pid != opened.pid


def test_it_ends_when_its_home_is_gone() -> None:
    opened = control.up()
    Place.here().file.unlink()

    until(lambda: not Place.here().is_locked())
    assert control.status() is None and opened.pid


def test_what_lasts_of_a_fault_is_cleared_with_the_faults() -> None:
    """Sold out, slow images, locks: nothing goes wrong any more afterwards. What was done to pods stays done."""

    def is_to_be_had() -> bool:
        return any(offer.stock == "high" for offer in company("sandbox").offers(OfferQuery()))

    control.up()
    control.fault("foreign-pod", Ask(count=2))
    control.fault("locked")
    control.fault("sold-out")
    assert not is_to_be_had() and [rental.locked for rental in company("sandbox").list()] == [True, True]

    control.clear_faults()

    assert is_to_be_had() and [rental.locked for rental in company("sandbox").list()] == [False, False]


def test_faults_and_money_come_from_outside() -> None:
    control.up(balance_usd=5)
    found = control.fault("stock-out", Ask(times=2))
    assert [(each.name, each.times) for each in found.faults] == [("stock-out", 2)]
    with customer() as http:
        assert [http.post("/v2/pods", json=BODY).status_code for _ in range(3)] == [400, 400, 201]
    assert control.clear_faults().faults == ()
    assert control.add_money(10).balance_usd == pytest.approx(15, abs=0.1)
    with pytest.raises(NotFound, match="No fault is called"):
        control.fault("stockout")
    with pytest.raises(NotFound):
        control.fault("vanish", Ask(pod="nobody"))
    with pytest.raises(BadArgument):
        control.up(speed=0)
    assert {each.name for each in control.fault_names()} >= {"stock-out", "created-500", "listing-lag"}
