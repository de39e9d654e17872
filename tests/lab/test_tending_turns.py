"""Who tends the pods: one at a time, the next one at once when it ends, and nobody who slept through its turn."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.lab.launches import Phase
from podlab.lab.tending_file import Owner, TendingFile
from podlab.renting import Policy
from tests.lab.company import launched
from tests.lab.tending_computer import HOUR_S, Computer


def test_one_does_the_talking_and_the_others_stand_by(computer: Computer, tmp_path: Path) -> None:
    launched(computer.company, computer.ledger)
    second = Computer(tmp_path, computer.clock, computer.company)
    second.begin("kernel")
    computer.tend()
    computer.company.calls.clear()

    assert second.tend().standby
    assert computer.company.calls == []
    computer.clock.true += computer.file.held_s + 1
    assert not second.tend().standby
    assert computer.tend().standby


def test_one_that_ends_lets_the_next_in_at_once(computer: Computer, tmp_path: Path) -> None:
    launched(computer.company, computer.ledger)
    second = Computer(tmp_path, computer.clock, computer.company)
    computer.tend()
    computer.file.release(computer.world.owner)
    assert not second.tend().standby


def test_one_that_slept_through_its_turn_does_nothing_when_it_wakes(computer: Computer, tmp_path: Path) -> None:
    """It is stopped in the middle of a round, between asking for the pods and ending one of them."""
    id, machine = launched(computer.company, computer.ledger, policy=Policy(budget_usd=0.1))
    second = Computer(tmp_path, computer.clock, computer.company)
    computer.tend()
    computer.clock.true += HOUR_S

    def sleep(call: str, *, slept: list[str]) -> None:
        if call == "list" and not slept:
            slept.append(call)
            computer.clock.true += computer.file.held_s + 1
            machine.usd_per_hour = 0.0
            assert not second.tend().standby

    computer.company.fault = functools.partial(sleep, slept=[])
    assert computer.tend().standby
    assert computer.company.calls.count("terminate") == 1  # by the other one
    assert computer.launch(id).phase is Phase.ENDING


@pytest.mark.parametrize(("asleep", "done"), [("list", ["list"]), ("beat", ["list", "beat"]), ("bills", None)])
def test_one_that_wakes_in_a_round_goes_on_with_nothing_of_it(
    computer: Computer, tmp_path: Path, asleep: str, done: list[str] | None
) -> None:
    """Another process has the turn by then, and keeps it: what that has found is not written over."""
    launched(computer.company, computer.ledger, acts=True)
    second = Computer(tmp_path, computer.clock, computer.company)
    second.begin("kernel")

    def sleep(call: str, *, slept: list[int]) -> None:
        if call == asleep and not slept:
            slept.append(len(computer.company.calls))
            computer.clock.true += computer.file.held_s + 1
            assert not second.tend().standby
            slept.append(len(computer.company.calls))

    slept: list[int] = []
    computer.company.fault = functools.partial(sleep, slept=slept)
    assert computer.tend().standby
    before, woken = slept
    assert computer.company.calls[:before] == (done or computer.company.calls[:before])
    assert computer.company.calls[woken:] == [], "nothing more was asked, said or ended"
    assert computer.file.owner() == second.world.owner
    assert computer.file.notes().pods != ()


def test_one_that_was_killed_is_followed_at_once(computer: Computer, tmp_path: Path) -> None:
    """Its lease still runs, its process does not; a process of another computer cannot be looked at."""
    launched(computer.company, computer.ledger)
    second = Computer(tmp_path, computer.clock, computer.company)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    here = Owner.here("keeper")
    for owner, stands_by in (
        (replace(here, pid=gone.pid, host="elsewhere"), True),
        (replace(here, pid=gone.pid), False),
    ):
        assert computer.file.take(owner)
        assert second.tend().standby is stands_by
        computer.file.release(owner)
        computer.file.release(second.world.owner)


@pytest.mark.parametrize(("host", "stands_by"), [("here", False), ("elsewhere", True)])
def test_a_computer_that_was_started_anew_tends_at_once(
    computer: Computer, tmp_path: Path, host: str, stands_by: bool
) -> None:
    """Whoever had the turn before is gone with the boot, though its number may be another process's by now. Between
    computers that share a home nobody can tell, so the lease is waited for."""
    launched(computer.company, computer.ledger)
    owner = Owner.here("keeper")
    assert computer.file.take(owner if host == "here" else replace(owner, host="elsewhere"))
    anew = Computer(tmp_path, computer.clock, computer.company)
    anew.file = TendingFile(tmp_path / "tending.json", computer.clock.now, lambda: 5.0, "boot-1")
    anew.begin("keeper")

    assert anew.tend().standby is stands_by
    computer.clock.true += anew.file.held_s + 1
    assert not anew.tend().standby


def test_a_clock_that_is_set_hands_out_no_second_lease(computer: Computer, tmp_path: Path) -> None:
    launched(computer.company, computer.ledger)
    second = Computer(tmp_path, computer.clock, computer.company)
    computer.tend()
    computer.clock.off_s = 86400
    assert second.tend().standby
