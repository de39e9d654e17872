"""The figures of the switch, on an injected clock."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from podlab.remote import switch_rules
from podlab.remote.machine import Fault
from podlab.remote.switch_rules import State, read, save

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
