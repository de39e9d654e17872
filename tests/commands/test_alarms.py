"""What whoever tends rented pods has found is said before the next command, once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from podlab.commands import alarms
from podlab.events import Event, Notice, Stage, Work
from podlab.lab.tending_file import Notes, Owner, TendingFile
from podlab.settings import home


@pytest.fixture(autouse=True)
def nothing_said() -> Iterator[None]:
    alarms._said.clear()
    yield
    alarms._said.clear()


def found(*, alarm: str = "", warning: str = "") -> None:
    owner = Owner("keeper", "t")
    notes = Notes(1.0, None, alarms=(alarm,) if alarm else (), warnings=(warning,) if warning else ())
    assert TendingFile(home() / "tending.json").write(owner, notes)


def work() -> Work[int]:
    yield Stage("work", "Working")
    return 3


def events() -> list[Event]:
    return list(alarms.first(work()))


def test_an_alarm_and_a_warning_come_before_the_work() -> None:
    found(alarm="the ledger is damaged", warning="gpu ends in 9 min 3 s")

    said = events()
    assert [event.text for event in said if isinstance(event, Notice)] == [
        "the ledger is damaged", "gpu ends in 9 min 3 s",
    ]  # fmt: skip
    assert said[-1] == Stage("work", "Working")


def test_what_was_said_is_not_said_again_however_near_it_came() -> None:
    found(warning="gpu ends in 9 min 3 s")
    events()
    found(warning="gpu ends in 45.0 s")

    assert events() == [Stage("work", "Working")]


def test_what_was_found_long_ago_is_not_said() -> None:
    found(alarm="the ledger is damaged")
    os.utime(home() / "tending.json", (1.0, 1.0))

    assert events() == [Stage("work", "Working")]


def test_where_nothing_was_ever_rented_nothing_is_looked_at() -> None:
    assert events() == [Stage("work", "Working")]
