"""Rounds of tending, on a clock of the test's own against a company in memory: what lives is told that somebody is
there, what has to end ends, whatever the provider, the pods and this computer do meanwhile."""

from __future__ import annotations

import pytest

from podlab.errors import BadSecret, BadSettings, KeyRefused, OutcomeUnknown, RateLimited
from podlab.lab.launches import Phase
from podlab.lab.money import Caps
from podlab.renting import Policy, RentalState
from tests.lab.company import launched
from tests.lab.tending_computer import HOUR_S, LEASE_S, UNAVAILABLE, Computer, failing


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


def test_a_listing_that_lacks_a_pod_keeps_nobody_from_telling_it_to_live(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, machine = launched(computer.company, computer.ledger, policy=Policy(lease_s=LEASE_S), acts=True)
    computer.run(200)
    monkeypatch.setattr(computer.company, "list", lambda: ())
    computer.run(3 * LEASE_S)
    assert computer.company.alive() == [machine]
    assert computer.launch(id).phase is Phase.LIVE
