"""The figures of the switch, on an injected clock."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from podlab.remote import switch_rules
from podlab.remote.machine import Fault
from podlab.remote.switch_rules import State, read, read_earlier, save

START = 5000.0


def state(**told: Any) -> State:
    return State("launch1", "life1", START, {"lease_s": 600.0, **told}, START + 1, 900.0)


def rules_of(found: list[tuple[str, str]]) -> list[str]:
    return [rule for rule, _ in found]


def test_without_word_a_pod_ends_after_its_grace_and_with_word_after_its_lease() -> None:
    made = state()

    assert rules_of(made.reasons(START + 899, seen=True)) == []
    assert rules_of(made.reasons(START + 900, seen=True)) == ["lease"]

    made.hear({"serial": 0, "lease_s": 600.0}, START + 850)

    assert rules_of(made.reasons(START + 1449, seen=True)) == []
    assert rules_of(made.reasons(START + 1450, seen=True)) == ["lease"]


def test_the_start_commands_seconds_count_from_the_start() -> None:
    made = state(deadline_left_s=100.0)

    assert rules_of(made.reasons(START + 99, seen=True)) == []
    assert rules_of(made.reasons(START + 100, seen=True)) == ["deadline"]


def test_the_first_word_says_the_deadline_anew_whatever_the_start_command_said() -> None:
    made = state(deadline_left_s=100.0)

    assert made.hear({"serial": 0, "lease_s": 600.0, "deadline_left_s": 3000.0}, START + 50)

    assert rules_of(made.reasons(START + 500, seen=True)) == []
    assert made.told(START + 50)["deadline_left_s"] == 3000.0


def test_an_older_policy_never_takes_the_place_of_a_newer_one_but_renews_the_lease() -> None:
    made = state()
    made.hear({"serial": 7, "lease_s": 600.0, "deadline_left_s": 1000.0, "idle_s": 60.0}, START + 10)

    assert not made.hear({"serial": 6, "lease_s": 90000.0, "deadline_left_s": 99999.0}, START + 300)

    told = made.told(START + 300)
    assert (told["serial"], told["idle_s"], told["deadline_left_s"]) == (7, 60.0, 710.0)
    assert told["lease_left_s"] == 600.0


def test_a_newer_policy_tightens_and_extends() -> None:
    made = state()
    made.hear({"serial": 1, "lease_s": 600.0, "deadline_left_s": 1000.0}, START)

    assert made.hear({"serial": 2, "lease_s": 60.0, "deadline_left_s": 50.0}, START + 10)
    assert made.told(START + 10)["deadline_left_s"] == 50.0
    assert made.hear({"serial": 3, "lease_s": 60.0, "deadline_left_s": None}, START + 20)
    assert made.told(START + 20)["deadline_left_s"] is None


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_clock_that_jumps_where_the_word_comes_from_moves_nothing(jump_s: float) -> None:
    made = state()
    made.hear({"serial": 1, "lease_s": 600.0, "deadline_left_s": 3600.0, "budget_usd": 5.0, "spent_usd": 0.1,
               "usd_per_hour": 1.0}, START + 10)  # fmt: skip

    made.hear({"serial": 1, "lease_s": 600.0, "deadline_left_s": 3590.0 - jump_s, "budget_usd": 5.0,
               "spent_usd": max(0.0, 0.1 + jump_s / 3600), "usd_per_hour": 1.0}, START + 20)  # fmt: skip

    assert made.told(START + 20)["deadline_left_s"] == 3590.0
    assert rules_of(made.reasons(START + 20, seen=True)) == []


def test_money_is_counted_from_the_start_at_the_price_and_what_was_spent_before_is_told() -> None:
    made = state(budget_usd=2.0, usd_per_hour=3.6)  # a tenth of a cent a second

    assert math.isclose(made.rules.money_left_s(0.0) or 0, 2000.0)
    assert rules_of(made.reasons(START + 800, seen=True)) == []

    # 1.5 were spent when this start was 100 s old, so 1.4 of them before it.
    made.hear({"serial": 0, "lease_s": 9000.0, "budget_usd": 2.0, "usd_per_hour": 3.6, "spent_usd": 1.5}, START + 100)

    assert math.isclose(made.rules.before_usd, 1.4)
    assert rules_of(made.reasons(START + 599, seen=True)) == []
    assert rules_of(made.reasons(START + 601, seen=True)) == ["money"]


def test_word_that_tells_less_than_the_pod_has_cost_since_its_start_does_not_make_it_cheaper() -> None:
    made = state()

    made.hear({"serial": 0, "lease_s": 9000.0, "budget_usd": 1.0, "usd_per_hour": 3.6, "spent_usd": 0.0}, START + 990)

    assert math.isclose(made.told(START + 990)["spent_usd"], 0.99)
    assert rules_of(made.reasons(START + 1001, seen=True)) == ["money"]


def test_a_price_that_changes_counts_at_once() -> None:
    made = state()
    made.hear({"serial": 0, "lease_s": 9000.0, "budget_usd": 1.0, "usd_per_hour": 1.8}, START + 10)

    made.hear({"serial": 0, "lease_s": 9000.0, "budget_usd": 1.0, "usd_per_hour": 3.6}, START + 20)

    assert math.isclose(made.rules.money_left_s(500.0) or 0, 500.0)


def test_a_pod_that_costs_nothing_has_money_for_ever_until_none_is_left_at_all() -> None:
    assert state(budget_usd=1.0).rules.money_left_s(1e6) is None
    assert state(budget_usd=0.0).rules.money_left_s(1.0) == 0.0


def test_idle_counts_only_where_somebody_looked_and_from_the_last_thing_done() -> None:
    made = state(idle_s=60.0)

    assert rules_of(made.reasons(START + 61, seen=False)) == []
    assert rules_of(made.reasons(START + 61, seen=True)) == ["idle"]
    made.busy_at = START + 30
    assert rules_of(made.reasons(START + 61, seen=True)) == []


def test_a_changed_policy_gives_a_pod_that_was_idle_the_whole_time_again() -> None:
    made = state()

    made.hear({"serial": 1, "lease_s": 6000.0, "idle_s": 60.0}, START + 500)

    assert rules_of(made.reasons(START + 559, seen=True)) == []
    assert rules_of(made.reasons(START + 560, seen=True)) == ["idle"]


@pytest.mark.parametrize(
    "told",
    [
        {"serial": "1"}, {"serial": True}, {"serial": -2}, {"serial": 2**60}, {"lease_s": 0}, {"lease_s": "600"},
        {"lease_s": float("nan")}, {"deadline_left_s": float("inf")}, {"budget_usd": -1}, {"idle_s": 0},
        {"idle_s": [60]}, {"usd_per_hour": 1e30}, {"spent_usd": {}},
    ],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_changes_nothing(told: dict[str, Any]) -> None:
    made = state(deadline_left_s=100.0)
    before = made.kept()

    with pytest.raises(Fault):
        made.hear({"serial": 5, **told}, START + 10)

    assert made.kept() == before


def test_a_state_survives_its_switch(tmp_path: Path) -> None:
    made = state(budget_usd=3.0, idle_s=50.0)
    made.hear({"serial": 4, "lease_s": 77.0, "deadline_left_s": 1000.0, "budget_usd": 3.0, "idle_s": 50.0}, START + 10)
    assert save([str(tmp_path / "a")], made.kept()) == ""

    other = state()
    other.take(read([str(tmp_path / "a")], "launch1", "life1"))

    assert other.told(START + 20) == made.told(START + 20)


@pytest.mark.parametrize(("launch", "life"), [("launch1", "life2"), ("launch2", "life1")])
def test_what_another_life_or_launch_left_is_not_read(tmp_path: Path, launch: str, life: str) -> None:
    save([str(tmp_path / "a")], state(deadline_left_s=1.0).kept())

    assert read([str(tmp_path / "a")], launch, life) == {}


# ------------------------------------------------------------------------------------------------ started again

RUN = "2026-05-01T10:00:00.000Z"
LIFE_S = 840.0
"""Of a container that ends again and again: less than its grace."""


def until_it_ends(keeps: bool, **told: Any) -> float:
    """How long a pod runs whose first process ends every LIFE_S, while nobody speaks to it."""
    kept: dict[str, Any] = {}
    for lives in range(200):
        begun = START + lives * LIFE_S
        made = State("launch1", f"boot.1.{lives}", begun, {"lease_s": 600.0, **told}, begun + 1, 900.0)
        made.belong(RUN, begun + 2 - START, kept if keeps else {}, begun + 2, 900.0)
        kept = made.kept()
        for now in range(int(begun) + 2, int(begun + LIFE_S), 10):
            if made.reasons(now, seen=False):
                return now - START
    raise AssertionError("it is billed for ever")


def test_a_container_that_is_started_again_and_again_ends_within_its_grace() -> None:
    assert until_it_ends(keeps=True) <= 910


def test_where_nothing_is_kept_it_ends_a_little_later() -> None:
    assert until_it_ends(keeps=False) <= 2 * 900 + 310


@pytest.mark.parametrize("keeps", [True, False])
def test_deadline_and_money_count_from_the_pods_start_however_often_its_container_is_started(keeps: bool) -> None:
    assert until_it_ends(keeps, deadline_left_s=500.0) <= 510
    assert until_it_ends(keeps, budget_usd=0.1, usd_per_hour=3.6) <= 110


def test_what_was_said_goes_on_in_the_next_life_of_the_same_run() -> None:
    first = State("launch1", "boot.1.1", START, {"lease_s": 600.0}, START, 900.0)
    first.belong(RUN, 0.0, {}, START, 900.0)
    first.hear({"serial": 4, "lease_s": 600.0, "deadline_left_s": 2000.0, "idle_s": 900.0}, START + 100)

    second = State("launch1", "boot.1.2", START + 150, {"lease_s": 600.0}, START + 150, 900.0)
    second.belong(RUN, 160.0, first.kept(), START + 160, 900.0)

    assert second.told(START + 160) == {**first.told(START + 160), "life": "boot.1.2"}


def test_a_lease_that_ran_out_while_the_container_was_away_is_spared_once_until_there_is_word_again() -> None:
    first = State("launch1", "boot.1.1", START, {"lease_s": 600.0}, START, 900.0)
    first.belong(RUN, 0.0, {}, START, 900.0)
    first.hear({"serial": 0, "lease_s": 600.0}, START + 10)

    second = State("launch1", "boot.1.2", START + 800, {"lease_s": 600.0}, START + 800, 900.0)
    second.belong(RUN, 800.0, first.kept(), START + 800, 900.0)
    third = State("launch1", "boot.1.3", START + 1000, {"lease_s": 600.0}, START + 1000, 900.0)
    third.belong(RUN, 1000.0, second.kept(), START + 1000, 900.0)

    assert second.told(START + 800)["lease_left_s"] == switch_rules.SPARED_S
    assert third.told(START + 1000)["lease_left_s"] == switch_rules.SPARED_S - 200
    third.hear({"serial": 0, "lease_s": 600.0}, START + 1001)
    assert third.spared == 0


def test_a_pod_that_was_stopped_and_started_begins_anew() -> None:
    first = State("launch1", "boot.1.1", START, {"deadline_left_s": 100.0}, START, 900.0)
    first.belong(RUN, 0.0, {}, START, 900.0)

    second = State("launch1", "boot.1.2", START + 5000, {"deadline_left_s": 100.0}, START + 5000, 900.0)
    second.belong("2026-05-01T11:23:19.000Z", 1.0, first.kept(), START + 5001, 900.0)

    assert second.told(START + 5001)["deadline_left_s"] == 99.0
    assert second.told(START + 5001)["lease_left_s"] == 899.0


def test_word_that_comes_before_the_provider_tells_of_the_start_is_not_moved_by_it() -> None:
    made = State("launch1", "boot.1.2", START, {"deadline_left_s": 100.0}, START, 900.0)
    made.hear({"serial": 1, "lease_s": 600.0, "deadline_left_s": 1000.0, "budget_usd": 9.0, "spent_usd": 5.0,
               "usd_per_hour": 3.6}, START)  # fmt: skip

    made.belong(RUN, 2000.0, {}, START, 900.0)

    told = made.told(START)
    assert (told["deadline_left_s"], told["lease_left_s"], told["spent_usd"]) == (1000.0, 600.0, 5.0)
    assert told["up_s"] == 2000.0


def test_an_image_that_was_long_on_its_way_leaves_its_container_the_time_for_a_first_word() -> None:
    made = State("launch1", "boot.1.1", START, {"lease_s": 600.0}, START, 900.0)

    made.belong(RUN, 850.0, {}, START, 900.0)

    assert made.told(START)["lease_left_s"] == 900.0


def test_a_provider_that_does_not_tell_of_the_start_changes_nothing() -> None:
    made = state(deadline_left_s=100.0)
    before = made.kept()

    made.belong("", None, {}, START, 900.0)

    assert made.kept() == before


def test_what_an_earlier_life_on_the_same_machine_kept_is_found_and_no_others(tmp_path: Path) -> None:
    made = State("launch1", "boot.1.1", START, {}, START, 900.0)
    folders = [str(tmp_path / "a")]
    save(folders, made.kept())
    assert read_earlier(folders, "launch1", "boot.1.2") == {}  # it is of no known run

    made.belong(RUN, 0.0, {}, START, 900.0)
    save(folders, made.kept())

    assert read_earlier(folders, "launch1", "boot.1.2")["life"] == "boot.1.1"
    for launch, life in (("launch1", "boot.1.1"), ("launch2", "boot.1.2"), ("launch1", "other.1.2")):
        assert read_earlier(folders, launch, life) == {}


# ------------------------------------------------------------------------------------------------ on disk


def test_a_disk_that_takes_nothing_is_told_and_the_next_folder_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folders = [str(tmp_path / "file" / "a"), str(tmp_path / "b")]

    assert save(folders, state().kept()) == ""
    assert read(folders, "launch1", "life1")["life"] == "life1"
    assert "cannot keep its state" in save(folders[:1], state().kept())


def test_damaged_states_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    save([str(folder)], state().kept())
    whole = (folder / switch_rules.FILE).read_text()
    damaged = [whole[:cut] for cut in range(0, len(whole), 7)]
    damaged += [whole.replace('"lease_at": ', '"lease_at": "x", "y": '), "[]", "\0\0", '{"v": 1}', "null"]
    for rule in ("lease_s", "serial", "usd_per_hour"):
        value = json.loads(whole)
        value["rules"][rule] = None
        damaged.append(json.dumps(value))

    for text in damaged:
        (folder / switch_rules.FILE).write_text(text)
        assert read([str(folder)], "launch1", "life1") == {}, text
