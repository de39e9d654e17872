"""The ledger held against the list and the bills: ours, what is gone, what came twice, what is others', what is billed
and nowhere. On counted time, with the company's own logic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from podlab.commands.drive import drive
from podlab.errors import NotAllowed, ProviderUnavailable, Refused, WrongState
from podlab.lab import ending, tenure
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.market import Market
from podlab.lab.reconcile import Reconciled, reconcile
from podlab.sandbox.records import PodRecord, Status, Wanted
from tests.audiences import Silent
from tests.campaign.clockwork import Process
from tests.campaign.desk import NAME, Crew
from tests.campaign.town import WISH, Town

T = TypeVar("T")


@pytest.fixture
def town() -> Town:
    return Town(seed=3)


def done(town: Town, body: Callable[[Market], T], *, name: str = "person", for_s: float = 600.0) -> T:
    """What a process does, with the time it takes."""
    process = Process(name)
    market = town.market(process)
    town.clock.start(process, lambda: body(market))
    town.clock.run(town.clock.now + for_s)
    if process.error is not None:
        raise process.error
    assert process.done
    return process.result  # type: ignore[return-value]


def rent(town: Town) -> tuple[Launch, PodRecord]:
    process = Process("create")
    town.clock.start(process, lambda: town.create(process, replace(WISH, ttl_s=86400.0)))
    town.clock.run(town.clock.now + 60.0)
    assert process.error is None
    (launch,) = all_launches(town.ledger)
    return launch, town.made[0]


def look(town: Town, *, bills: bool = False) -> Reconciled:
    return done(town, lambda market: reconcile(market, providers=(NAME,), bills=bills), for_s=5.0)


def test_what_runs_is_ours_and_what_nobody_asked_for_is_foreign(town: Town) -> None:
    launch, made = rent(town)

    found = look(town)

    assert [(each.launch.id, each.rental and each.rental.id) for each in found.ours] == [(launch.id, made.id)]
    assert {rental.name for _, rental in found.foreign} == {pod.name for pod in town.foreign}
    assert (found.gone, found.duplicates, found.problems, found.looked_at) == ((), (), (), (NAME,))
    assert town.touched == []


def test_what_somebody_ended_in_the_console_is_gone_after_two_looks(town: Town) -> None:
    launch, made = rent(town)
    town.clock.run(town.clock.now + 120.0)
    town.company.vanish(made.id)

    first, soon = look(town), look(town)
    town.clock.run(town.clock.now + 60.0)
    second = look(town)

    assert [each.launch.id for each in first.ours] == [each.launch.id for each in soon.ours] == [launch.id]
    assert [each.id for each in second.gone] == [launch.id]
    assert second.gone[0].usd(town.clock.now) == pytest.approx(0.405 * 180 / 3600, rel=0.2), (
        "billed until it was missed"
    )


def test_a_second_pod_of_one_order_is_ended_and_told(town: Town) -> None:
    _launch, made = rent(town)
    again = town.company.create(Wanted(made.name, "image", "NVIDIA A40"))

    found = look(town)

    assert [rental.id for _, rental in found.duplicates] == [again.id]
    assert (again.status, made.status) == (Status.TERMINATED, Status.RUNNING)
    assert all_launches(town.ledger)[0].extra_ids == (again.id,)


def test_what_comes_back_after_its_row_was_closed_is_ended_again(town: Town) -> None:
    launch, made = rent(town)
    done(town, lambda market: _end(market, launch))
    assert all_launches(town.ledger)[0].phase is Phase.ENDED
    made.status, made.terminated_at = Status.RUNNING, None

    found = look(town)

    assert [each.launch.phase for each in found.ours] == [Phase.ENDING]
    assert made.status is Status.TERMINATED
    assert "seen again" in all_launches(town.ledger)[0].why


def _end(market: Market, launch: Launch) -> Launch:
    ending.end(market, launch, why="a person asked", brake="person")
    return drive(ending.until_proven(market, launch), Silent())


def test_an_intent_whose_asker_died_is_adopted_by_its_name(town: Town) -> None:
    """Killed between the order and its answer: the pod is there, and only its name says whose it is."""
    _launch, made = rent(town)
    lines = town.ledger._entries  # type: ignore[attr-defined]
    lines[:] = [entry for entry in lines if entry.verb == "rent.ask"]

    found = look(town)

    assert [(each.launch.rental_id, each.launch.phase) for each in found.ours] == [(made.id, Phase.LIVE)]


def test_what_is_billed_after_its_proven_end_is_an_alarm(town: Town) -> None:
    launch, made = rent(town)
    done(town, lambda market: _end(market, launch))
    town.clock.run(town.clock.now + 3 * 3600.0)
    assert look(town, bills=True).unlisted == ()
    town.company.meter.run(made.id, town.clock.now - 1800, town.clock.now - 60, 0.0001, 0.0)

    found = look(town, bills=True)

    assert {bill.rental_id for _, bill in found.unlisted} == {made.id}


def test_what_a_list_hides_and_is_billed_is_an_alarm(town: Town) -> None:
    hidden = town.company.create(Wanted("hidden", "image", "NVIDIA L4"))
    town.clock.run(town.clock.now + 600.0)
    hidden.unlisted_until = town.clock.now + 3600.0

    found = look(town, bills=True)

    assert [bill.rental_id for _, bill in found.unlisted] == [hidden.id]


def test_a_provider_that_does_not_answer_claims_nothing(town: Town) -> None:
    launch, _ = rent(town)
    town.api_down_until = town.clock.now + 60.0

    found = look(town)

    assert [each.launch.id for each in found.ours] == [launch.id]
    assert found.looked_at == ()
    assert "could not be asked" in found.problems[0]


def test_an_absence_that_another_account_shows_is_refused_with_the_fix(town: Town) -> None:
    launch, _ = rent(town)
    town.clock.run(town.clock.now + 200.0)
    town.elsewhere = town.clock.now, town.clock.now + 60.0

    with pytest.raises(NotAllowed, match="was rented with another key") as refused:
        done(town, lambda market: ending.prove(market, launch), for_s=5.0)

    assert "podlab secret set" in refused.value.hint
    assert look(town).problems


def test_another_key_of_the_same_account_is_believed_when_a_bill_vouches_for_it(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, made = rent(town)
    town.clock.run(town.clock.now + 200.0)
    town.company.vanish(made.id)
    monkeypatch.setattr("tests.campaign.desk.Desk.identity", "a new key's")

    look(town)
    town.clock.run(town.clock.now + 60.0)

    assert [each.id for each in look(town).gone] == [launch.id]
    assert all_launches(town.ledger)[0].keys == ("ours", "a new key's")


def test_a_locked_pod_stays_open_and_says_so(town: Town) -> None:
    launch, made = rent(town)
    made.locked = True

    ended = done(town, lambda market: _end(market, launch), for_s=ending.PROOF_S + 60)

    assert (ended.phase, made.status) == (Phase.ENDING, Status.RUNNING)
    made.locked = False
    assert done(town, lambda market: _end(market, launch)).phase is Phase.ENDED or made.status is Status.TERMINATED


@pytest.mark.parametrize("error", [WrongState("no"), ProviderUnavailable("silent")])
def test_an_end_that_the_provider_refuses_is_written_down_all_the_same(
    town: Town, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    launch, _ = rent(town)

    def refuse(self: object, rental_id: str) -> None:
        raise error

    monkeypatch.setattr("tests.campaign.desk.Desk.terminate", refuse)
    done(town, lambda market: ending.end(market, launch, why="enough", brake="person"), for_s=5.0)

    (row,) = all_launches(town.ledger)
    assert (row.phase, row.why, row.brake) == (Phase.ENDING, "enough", "person")


def test_what_ends_is_neither_started_nor_waited_for(town: Town) -> None:
    launch, _ = rent(town)
    done(town, lambda market: ending.end(market, launch, why="enough", brake="person"), for_s=5.0)
    (row,) = all_launches(town.ledger)
    process = Process("person")
    market = town.market(process)

    with pytest.raises(Refused, match="is ending: enough"):
        drive(tenure.start(market, row, Crew(town, process, market)), Silent(True))


def test_a_pod_whose_deadline_is_over_is_not_started(town: Town) -> None:
    launch, _ = rent(town)
    done(town, lambda market: drive(tenure.stop(market, launch), Silent()), for_s=60.0)
    town.ledger.append("rent.policy", launch.id, serial="1", deadline_at="1.0", budget_usd="", idle_s="", lease_s="600")
    (row,) = all_launches(town.ledger)

    with pytest.raises(Refused, match="deadline of .* is over"):
        done(town, lambda market: drive(tenure.start(market, row, Crew(town, Process("p"), market)), Silent(True)))
