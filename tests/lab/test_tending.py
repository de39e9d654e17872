"""Rounds of tending, on a clock of the test's own against a company in memory: what lives is told that somebody is
there, what has to end ends, whatever the provider, the pods and this computer do meanwhile."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from podlab.errors import BadSecret, BadSettings, KeyRefused, OutcomeUnknown, ProviderUnavailable, RateLimited
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.money import Caps
from podlab.lab.tending import Tended, World, tend
from podlab.lab.tending_file import Owner, TendingFile
from podlab.ledger import Ledger
from podlab.renting import Policy, RentalState
from tests.lab.company import Clock, Company, launched, market_of
from tests.processes import stopped_holder

HOUR_S = 3600.0
LEASE_S = 600.0
TOKENS = itertools.count(1)


class Computer:
    """One process that tends, on a computer with a clock."""

    def __init__(self, home: Path, clock: Clock, company: Company, *, caps: Caps | None = None) -> None:
        self.clock, self.company = clock, company
        self.caps = caps or Caps()
        self.ledger = Ledger(home / "ledger.jsonl", now=clock.now)
        self.market = market_of(company, clock, self.ledger)
        self.file = TendingFile(home / "tending.json", clock.now, clock.steady, "boot-0")
        self.begin("keeper")

    def begin(self, who: str) -> None:
        """Another process, which remembers nothing."""
        owner = Owner(who, f"{who}-{next(TOKENS)}")  # type: ignore[arg-type]
        self.world = World(self.file, owner, self.company.beat, lambda: self.caps, beat_deadline_s=None)

    def tend(self) -> Tended:
        return tend(self.market, self.world)

    def run(self, seconds: float) -> Tended:
        """Rounds for so long, each when it is due."""
        until = self.clock.true + seconds
        while True:
            tended = self.tend()
            if self.clock.true + tended.again_s > until:
                self.clock.true = until
                return tended
            self.clock.true += tended.again_s

    def launch(self, id: str) -> Launch:
        return next(launch for launch in all_launches(self.ledger) if launch.id == id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def company(clock: Clock) -> Company:
    return Company(lambda: clock.true)


@pytest.fixture
def computer(tmp_path: Path, clock: Clock, company: Company) -> Computer:
    return Computer(tmp_path, clock, company)


def failing(error: Exception, *calls: str) -> Callable[[str], None]:
    def fault(call: str) -> None:
        if call in calls or not calls:
            raise error

    return fault


UNAVAILABLE = ProviderUnavailable("no answer")


def test_with_nothing_rented_nobody_is_asked(computer: Computer) -> None:
    assert not computer.tend().watches
    assert computer.company.calls == []


def test_a_pod_that_is_tended_outlives_its_lease_and_one_that_is_not_does_not(computer: Computer) -> None:
    _, machine = launched(computer.company, computer.ledger, policy=Policy(lease_s=LEASE_S), acts=True)
    computer.run(3 * HOUR_S)
    assert computer.company.alive() == [machine]

    computer.clock.true += LEASE_S + 1
    assert computer.company.alive() == []


def test_one_listing_a_round_is_enough_for_all_pods(computer: Computer) -> None:
    for _ in range(3):
        launched(computer.company, computer.ledger)
    computer.tend()
    assert computer.company.calls.count("list") == 1
    assert computer.company.calls.count("get") == 0


@pytest.mark.parametrize(
    "policy, after_s",
    [
        (Policy(deadline_at=1_700_000_000.0 + HOUR_S), HOUR_S),
        (Policy(budget_usd=0.5), HOUR_S / 2),
    ],
)
def test_a_limit_ends_a_pod_and_the_row_is_closed_with_proof(
    computer: Computer, policy: Policy, after_s: float
) -> None:
    id, machine = launched(computer.company, computer.ledger, policy=policy)
    computer.run(after_s - 60)
    assert computer.company.alive() == [machine]

    computer.run(120)
    assert computer.company.alive() == []
    assert computer.launch(id).phase is Phase.ENDING
    assert computer.launch(id).brake == "keeper"
    computer.run(300)
    assert computer.launch(id).phase is Phase.ENDED
    assert machine.billed_until is not None
    assert machine.billed_until - machine.begun_at <= after_s + 31


def test_an_idle_pod_ends_and_a_busy_one_does_not(computer: Computer) -> None:
    idle, idler = launched(computer.company, computer.ledger, policy=Policy(idle_s=600))
    busy, worker = launched(computer.company, computer.ledger, policy=Policy(idle_s=600))
    idler.idle_for_s = worker.idle_for_s = 700
    worker.busy = ("download",)
    computer.tend()

    assert computer.company.alive() == [worker]
    assert "idle" in computer.launch(idle).why
    assert computer.launch(busy).armed_at is not None


def test_a_pod_that_never_arms_ends_from_outside(computer: Computer) -> None:
    id, _ = launched(computer.company, computer.ledger, armed=False)
    computer.run(800)
    assert len(computer.company.alive()) == 1
    computer.run(120)
    assert computer.company.alive() == []
    assert "it has no key" in computer.launch(id).why


def test_a_switch_that_fails_is_made_up_for(computer: Computer) -> None:
    id, machine = launched(computer.company, computer.ledger, policy=Policy(lease_s=LEASE_S))
    computer.run(120)
    machine.silent, machine.ends_at = True, None
    computer.run(LEASE_S)
    assert computer.company.alive() == [machine]
    computer.run(300)
    assert computer.company.alive() == []
    assert "no word reached it" in computer.launch(id).why


def test_a_night_asleep_ends_no_pod_that_answers_in_the_morning(computer: Computer) -> None:
    """It is told that somebody is there before it is held against a silence that was our own."""
    _, machine = launched(computer.company, computer.ledger, policy=Policy(lease_s=86400))
    computer.run(120)
    machine.silent = True
    computer.tend()
    machine.silent = False
    computer.clock.true += 90_000 - 8 * HOUR_S
    computer.tend()
    assert computer.company.alive() == [machine]


def test_a_pod_that_was_stopped_keeps_its_disk(computer: Computer) -> None:
    id, machine = launched(computer.company, computer.ledger, policy=Policy(deadline_at=1_700_000_000.0 + HOUR_S))
    computer.tend()
    machine.state, machine.usd_per_hour = RentalState.STOPPED, 0.9  # a provider that quotes the price of before
    tended = computer.run(2 * HOUR_S)
    assert computer.company.alive() == [machine]
    assert "its disk is still billed" in tended.notes.warnings[0]
    assert computer.launch(id).spans[-1].usd_per_hour == 0.2


def test_an_intent_that_a_crash_left_is_settled(computer: Computer) -> None:
    made, machine = launched(computer.company, computer.ledger, live=False)
    never, gone = launched(computer.company, computer.ledger, live=False)
    del computer.company.machines[gone.id]
    computer.run(400)

    assert computer.launch(made).phase is Phase.LIVE
    assert computer.launch(made).rental_id == machine.id
    assert not computer.launch(never).is_open


def test_what_was_proven_gone_and_comes_back_is_ended_again(computer: Computer) -> None:
    """It has no switch that would do it."""
    id, machine = launched(computer.company, computer.ledger, policy=Policy(budget_usd=0.1), armed=False)
    computer.run(900)
    assert not computer.launch(id).is_open
    machine.billed_until = None
    computer.run(60)
    assert computer.company.alive() == []
    computer.run(2000)
    assert not computer.launch(id).is_open
    assert not computer.tend().watches


@pytest.mark.parametrize(
    "error",
    [
        UNAVAILABLE, RateLimited("slow down", retry_after_s=45), OutcomeUnknown("reset"), BadSecret("no key"),
        ValueError("a bug of a package"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", ["list", "get", "terminate", "bills", "beat"])
def test_any_call_may_fail_for_a_while(computer: Computer, error: Exception, call: str) -> None:
    id, machine = launched(computer.company, computer.ledger, policy=Policy(deadline_at=1_700_000_000.0 + 600))
    other, _ = launched(computer.company, computer.ledger, acts=True)
    computer.run(300)
    computer.company.fault = failing(error, call)
    computer.run(900)
    computer.company.fault = lambda call: None
    computer.run(600)

    assert machine not in computer.company.alive()
    assert computer.launch(id).phase in (Phase.ENDING, Phase.ENDED)
    if call != "beat":  # its switch ended it
        assert computer.launch(other).phase is Phase.LIVE


def test_a_provider_that_is_down_is_not_hammered(computer: Computer) -> None:
    launched(computer.company, computer.ledger, policy=Policy(lease_s=60))
    computer.company.fault = failing(RateLimited("slow down", retry_after_s=300), "list")
    tended = computer.run(600)
    assert computer.company.calls.count("list") <= 3
    assert "slow down" in tended.notes.provider("memory").problem


def test_a_key_that_is_refused_is_an_alarm(computer: Computer) -> None:
    launched(computer.company, computer.ledger)
    computer.company.fault = failing(KeyRefused("the key is not accepted"), "list")
    assert "the key is not accepted" in computer.tend().notes.alarms[0]


def test_a_pod_whose_end_fails_for_long_is_an_alarm(computer: Computer) -> None:
    launched(computer.company, computer.ledger, policy=Policy(budget_usd=0.1), armed=False)
    computer.company.fault = failing(UNAVAILABLE, "terminate")
    assert "was to end and is still there" in computer.run(1500).notes.alarms[0]


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


def test_a_bill_is_asked_for_once_an_hour_and_written_when_it_moves(computer: Computer) -> None:
    id, _ = launched(computer.company, computer.ledger, policy=Policy(budget_usd=5))
    computer.company.bill_factor = 2.0
    computer.run(2 * HOUR_S + 60)
    assert computer.company.calls.count("bills") == 3
    assert computer.launch(id).billed_usd == pytest.approx(2 * 0.9 * 2, rel=0.05)
    computer.run(HOUR_S + 300)
    assert computer.launch(id).phase is Phase.ENDED  # the bill used up its budget long before our own figure


def test_the_caps_on_all_pods_end_them(computer: Computer) -> None:
    computer.caps = Caps(total_usd=1.0)
    launched(computer.company, computer.ledger)
    launched(computer.company, computer.ledger)
    tended = computer.run(HOUR_S / 2 - 120)
    assert "every rented pod ends in" in tended.notes.warnings[0]
    computer.run(240)
    assert computer.company.alive() == []


def test_a_cap_holds_while_the_settings_cannot_be_read(computer: Computer) -> None:
    def unreadable() -> Caps:
        raise BadSettings("config.toml cannot be read")

    computer.caps = Caps(total_usd=1.0)
    launched(computer.company, computer.ledger)
    launched(computer.company, computer.ledger)
    computer.tend()
    computer.world.caps = unreadable
    assert any("those of before" in alarm for alarm in computer.run(HOUR_S / 2 - 120).notes.alarms)
    computer.run(240)
    assert computer.company.alive() == []


def test_the_cap_on_a_day_ends_what_runs_and_spares_the_disk_of_what_is_stopped(computer: Computer) -> None:
    """The disk's few cents go on; the pod's files would be lost for them."""
    computer.caps = Caps(per_day_usd=1.0)
    _, stopped = launched(computer.company, computer.ledger)
    running, _ = launched(computer.company, computer.ledger)
    computer.run(HOUR_S / 4)
    stopped.state = RentalState.STOPPED
    computer.run(HOUR_S / 4)
    assert len(computer.company.alive()) == 2
    computer.run(HOUR_S / 2)
    assert computer.company.alive() == [stopped]
    assert "the day's $1 is used up" in computer.launch(running).why


@pytest.mark.parametrize("says_times", [True, False])
@pytest.mark.parametrize("off_s", [86400.0, -86400.0, 7 * HOUR_S, -1e7])
def test_a_clock_that_is_set_neither_ends_a_pod_early_nor_makes_it_immortal(
    computer: Computer, off_s: float, says_times: bool
) -> None:
    computer.caps = Caps(per_day_usd=23.0)
    policy = Policy(deadline_at=1_700_000_000.0 + 3 * HOUR_S, budget_usd=20)
    _, machine = launched(computer.company, computer.ledger, policy=policy)
    machine.says_times = says_times
    computer.run(HOUR_S)
    computer.clock.off_s = off_s
    computer.run(2 * HOUR_S - 120)
    assert computer.company.alive() == [machine]
    computer.run(180)
    assert computer.company.alive() == []


# Several processes


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


def test_a_listing_that_lacks_a_pod_keeps_nobody_from_telling_it_to_live(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, machine = launched(computer.company, computer.ledger, policy=Policy(lease_s=LEASE_S), acts=True)
    computer.run(200)
    monkeypatch.setattr(computer.company, "list", lambda: ())
    computer.run(3 * LEASE_S)
    assert computer.company.alive() == [machine]
    assert computer.launch(id).phase is Phase.LIVE


def test_what_was_noted_is_disposable(computer: Computer, tmp_path: Path) -> None:
    _, machine = launched(computer.company, computer.ledger)
    computer.tend()
    for content in (b"", b"{", b"[1]", b'{"format": 1}', b"\xff\xfe"):
        (tmp_path / "tending.json").write_bytes(content)
        computer.begin("keeper")
        assert not computer.tend().standby
    assert computer.company.alive() == [machine]
