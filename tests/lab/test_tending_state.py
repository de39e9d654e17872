"""Rounds of tending where a file does not hold: a damaged ledger, a full disk, a writer that was stopped. What has to
end ends all the same."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from podlab.lab.launches import Phase
from podlab.ledger import Ledger
from podlab.renting import Policy
from tests.lab.company import launched, market_of
from tests.lab.tending_computer import HOUR_S, LEASE_S, Computer
from tests.processes import stopped_holder


def test_a_damaged_ledger_is_an_alarm_and_what_has_to_end_is_ended(computer: Computer, tmp_path: Path) -> None:
    launched(computer.company, computer.ledger, policy=Policy(deadline_at=1_700_000_000.0 + HOUR_S))
    _, other = launched(computer.company, computer.ledger, acts=True)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\x00garbage\n", *lines[1:]]))
    computer.begin("keeper")  # which has never read it whole

    tended = computer.run(HOUR_S + 60)
    assert "damaged" in tended.notes.alarms[0]
    assert computer.company.alive() == [other]
    assert path.read_bytes().count(b"rent.ending") == 0


def test_a_line_that_was_changed_ends_no_other_pod(computer: Computer, tmp_path: Path) -> None:
    """The id of a pod of somebody else got into a row; a pod that is certainly ours still ends at its deadline."""
    policy = Policy(deadline_at=1_700_000_000.0 + HOUR_S)
    for _ in range(2):
        launched(computer.company, computer.ledger, policy=policy)
    theirs = computer.company.rent("somebody-else")
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b'"rental": "r1"', b'"rental": "r3"'), *lines[2:]]))
    assert theirs.id == "r3" and path.read_bytes() != b"".join(lines)
    computer.begin("keeper")

    computer.run(HOUR_S + 60)
    assert computer.company.alive() == [theirs]


@pytest.mark.parametrize("problem", ["damaged", "full"])
def test_a_pod_whose_id_nobody_could_write_down_still_ends_at_its_deadline(
    computer: Computer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    policy = Policy(deadline_at=1_700_000_000.0 + HOUR_S, lease_s=2 * HOUR_S)
    launched(computer.company, computer.ledger, policy=policy, live=False)

    def full(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    if problem == "full":
        monkeypatch.setattr("os.fsync", full)
    else:
        with (tmp_path / "ledger.jsonl").open("ab") as file:
            file.write(b"garbage\n")
    computer.run(HOUR_S - 60)
    assert len(computer.company.alive()) == 1
    computer.run(120)
    assert computer.company.alive() == []


def test_a_ledger_lost_under_way_is_made_up_for_by_what_was_known(computer: Computer, tmp_path: Path) -> None:
    launched(computer.company, computer.ledger, policy=Policy(deadline_at=1_700_000_000.0 + HOUR_S))
    computer.tend()
    (tmp_path / "ledger.jsonl").write_bytes(b"\xff" * 100 + b"\n")
    computer.run(HOUR_S + 60)
    assert computer.company.alive() == []


def test_a_disk_that_is_full_keeps_nobody_from_ending_pods(computer: Computer, monkeypatch: pytest.MonkeyPatch) -> None:
    _, machine = launched(computer.company, computer.ledger, policy=Policy(budget_usd=0.1))
    computer.tend()

    def full(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    computer.clock.true += HOUR_S
    computer.tend()
    assert computer.company.alive() == []
    assert machine.billed_until is not None


def test_a_ledger_that_takes_no_line_keeps_no_pod_from_being_told_to_live(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its price has changed, which cannot be written down; it lives on, and still ends at its deadline."""
    policy = Policy(lease_s=LEASE_S, deadline_at=1_700_000_000.0 + 3 * LEASE_S)
    _, machine = launched(computer.company, computer.ledger, policy=policy, acts=True)
    computer.tend()
    machine.usd_per_hour = 0.5

    def full(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    tended = computer.run(2 * LEASE_S)
    assert computer.company.alive() == [machine]
    assert "cannot be written" in tended.notes.alarms[0]
    machine.acts = False
    computer.run(LEASE_S + 60)
    assert computer.company.alive() == []


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file of this process takes a byte: the kernel refuses it, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def read_only() -> Iterator[None]:
    """Nothing can be opened to be written, whoever this process runs as."""
    opened = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.open", refuse)
        yield


@contextlib.contextmanager
def full() -> Iterator[None]:
    """Not even an empty file can be made."""
    opened = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, flags, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.open", refuse)
        yield


@pytest.mark.parametrize("nothing_can_be_written", [no_room, no_descriptors, read_only, full])
def test_where_nothing_can_be_written_pods_end_and_live_as_before(
    computer: Computer, nothing_can_be_written: Callable[[], AbstractContextManager[None]]
) -> None:
    """The lease of whoever tends cannot be renewed, and that stops no round: what is behind its deadline ends, and who
    lives is told so again and again. Its own switch would end it otherwise."""
    policy = Policy(deadline_at=1_700_000_000.0 + HOUR_S, lease_s=2 * HOUR_S)
    launched(computer.company, computer.ledger, policy=policy)
    launched(computer.company, computer.ledger, policy=Policy(budget_usd=0.5, lease_s=2 * HOUR_S))
    _, living = launched(computer.company, computer.ledger, policy=Policy(lease_s=LEASE_S), acts=True)
    # What it has read before; the file of whoever tends was never written.
    computer.world.entries = tuple(computer.ledger.entries())
    with nothing_can_be_written():
        for _ in range(3):  # each round, also where those before it could not be kept
            tended = computer.run(HOUR_S / 2)
            assert not tended.standby
        assert computer.company.alive() == [living]
    assert not computer.tend().standby
    assert computer.company.alive() == [living]


def test_where_nothing_can_be_written_one_who_is_known_to_tend_is_left_to_it(
    computer: Computer, tmp_path: Path
) -> None:
    launched(computer.company, computer.ledger, acts=True)
    second = Computer(tmp_path, computer.clock, computer.company)
    second.begin("kernel")
    computer.tend()
    with read_only():
        assert second.tend().standby
        computer.clock.true += computer.file.held_s + 1
        assert not second.tend().standby


def test_an_idle_pod_whose_switch_cannot_be_written_down_still_ends(computer: Computer) -> None:
    _, machine = launched(computer.company, computer.ledger, policy=Policy(idle_s=600.0))
    machine.idle_for_s = 700.0
    with no_room():
        computer.tend()
    assert computer.company.alive() == []


def test_a_provider_s_answer_that_breaks_podlab_keeps_no_pod_from_its_deadline(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong while it is written down is no reason to let it live."""
    launched(computer.company, computer.ledger, policy=Policy(deadline_at=1_700_000_000.0 + HOUR_S))

    def broken(*args: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("podlab.lab.ending.look", broken)
    monkeypatch.setattr(computer.world, "caps", broken)
    computer.run(HOUR_S + 60)
    assert computer.company.alive() == []


def test_a_writer_that_was_stopped_keeps_no_pod_alive(computer: Computer, tmp_path: Path) -> None:
    """A process holds the ledger's lock and does not run. What has to end is ended, what may live is told to, and the
    rows are written once the lock is free."""
    policy = Policy(deadline_at=1_700_000_000.0 + HOUR_S, lease_s=LEASE_S)
    ending = [launched(computer.company, computer.ledger, policy=policy)[0] for _ in range(3)]
    living, machine = launched(computer.company, computer.ledger, policy=Policy(lease_s=LEASE_S), acts=True)
    computer.run(HOUR_S - 60)
    impatient = Ledger(tmp_path / "ledger.jsonl", now=computer.clock.now, lock_s=0.05)
    computer.market = market_of(computer.company, computer.clock, impatient)
    with stopped_holder(tmp_path / "ledger.lock"):
        tended = computer.run(180)
        assert computer.company.alive() == [machine]
        assert any("held by another process" in alarm for alarm in tended.notes.alarms)
        assert [computer.launch(id).phase for id in ending] == [Phase.LIVE] * 3
    computer.run(600)
    assert [computer.launch(id).phase for id in ending] == [Phase.ENDED] * 3
    assert "deadline" in computer.launch(ending[0]).why
    assert computer.launch(living).phase is Phase.LIVE


def test_what_was_noted_is_disposable(computer: Computer, tmp_path: Path) -> None:
    _, machine = launched(computer.company, computer.ledger)
    computer.tend()
    for content in (b"", b"{", b"[1]", b'{"format": 1}', b"\xff\xfe"):
        (tmp_path / "tending.json").write_bytes(content)
        computer.begin("keeper")
        assert not computer.tend().standby
    assert computer.company.alive() == [machine]
