"""What rented pods cost, and what the caps make of it. Everything here is arithmetic over lines of a ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.errors import Refused
from podlab.events import Ask, Work
from podlab.lab import launches as ledger_of
from podlab.lab import money, volume_costs
from podlab.lab.launches import Launch
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.ledger import Ledger
from podlab.providers.base import Provider
from podlab.renting import Policy, Protection, RentalState, Volume
from tests.lab.rentals import ASKED_AT, HOUR_S, ask, launch, state

BERLIN = ZoneInfo("Europe/Berlin")
SAO_PAULO = ZoneInfo("America/Sao_Paulo")


def test_running_and_stopped_time_have_their_own_price() -> None:
    pod = launch(
        (HOUR_S, "rent.state", state(RentalState.STOPPED)),
        (3 * HOUR_S, "rent.state", state(RentalState.RUNNING)),
        price=2.0,
    )

    assert money.spent_usd(pod, ASKED_AT + HOUR_S) == pytest.approx(2.0)
    assert money.spent_usd(pod, ASKED_AT + 3 * HOUR_S) == pytest.approx(2.4)  # two hours of its disk at 0.2
    assert money.spent_usd(pod, ASKED_AT + 4 * HOUR_S) == pytest.approx(4.4)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.sampled_from(RentalState)), max_size=6), st.floats(0, 1e6))
def test_the_parts_of_a_life_add_up_to_the_whole(moves: list[tuple[float, RentalState]], at_s: float) -> None:
    lines = [(after_s, "rent.state", state(word)) for after_s, word in sorted(moves)]
    pod = launch(*lines)
    now = ASKED_AT + 1e6

    before = money.between_usd(pod, 0.0, now) - money.between_usd(pod, ASKED_AT + at_s, now)

    assert before == pytest.approx(pod.usd(ASKED_AT + at_s), abs=1e-6)
    assert money.spent_usd(pod, now) >= 0


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=6))
def test_a_clock_that_was_set_counts_no_time_twice(at_s: list[float]) -> None:
    """Whatever the clock said when the price changed, so much time at the highest price is the most it can come to."""
    lines = [(after_s, "rent.state", state(RentalState.RUNNING, 1.0 + n / 10)) for n, after_s in enumerate(at_s)]
    pod = launch(*lines)

    assert 0 <= pod.usd(ASKED_AT + 2 * HOUR_S) <= 2 * (1.0 + len(at_s) / 10)


def test_a_bill_that_says_more_counts_with_what_came_since() -> None:
    pod = launch((HOUR_S, "rent.bill", {"usd": "1.5"}))

    assert money.spent_usd(pod, ASKED_AT + 2 * HOUR_S) == pytest.approx(2.5)
    (cost,) = money.costs([pod], ASKED_AT + 2 * HOUR_S)
    assert cost.billed_usd == 1.5
    assert cost.difference_usd == pytest.approx(0.5)


def test_a_bill_that_lags_behind_does_not_lower_the_figure() -> None:
    pod = launch((HOUR_S, "rent.bill", {"usd": "0.5"}))

    assert money.spent_usd(pod, ASKED_AT + 2 * HOUR_S) == pytest.approx(2.0)


def test_the_last_bill_of_a_pod_that_has_ended_is_what_it_cost() -> None:
    ended = [(HOUR_S, "rent.absent", {}), (HOUR_S + 90, "rent.absent", {}), (HOUR_S + 91, "rent.ended", {})]
    soon = launch(*ended, (HOUR_S + 600, "rent.bill", {"usd": "0.7"}))
    late = launch(*ended, (5 * HOUR_S, "rent.bill", {"usd": "0.7"}))

    assert money.spent_usd(soon, ASKED_AT + 9 * HOUR_S) == pytest.approx(1.0)
    assert money.spent_usd(late, ASKED_AT + 9 * HOUR_S) == pytest.approx(0.7)


@pytest.mark.parametrize(
    "zone, noon, hours",
    [
        (BERLIN, 1_743_246_000.0, 23),  # 29 March 2025, 12:00; the next day has 23 hours
        (BERLIN, 1_761_390_000.0, 25),  # 25 October 2025; the next has 25
        (BERLIN, 1_750_000_000.0, 24),
        (SAO_PAULO, 1_541_257_200.0, 23),  # 3 November 2018; the next has no midnight
    ],
)
def test_a_day_lasts_from_midnight_to_midnight(zone: ZoneInfo, noon: float, hours: int) -> None:
    begins = money.day_ends(noon, zone)

    assert money.day_begins(begins, zone) == begins
    assert money.day_begins(begins - 1, zone) < begins
    assert money.day_ends(begins, zone) - begins == hours * HOUR_S


@given(st.floats(0, 4e9))
def test_every_moment_lies_in_its_day_and_month(now: float) -> None:
    assert money.month_begins(now, BERLIN) <= money.day_begins(now, BERLIN) <= now < money.day_ends(now, BERLIN)


def test_what_was_spent_yesterday_is_not_todays() -> None:
    zone = ZoneInfo("UTC")
    midnight = money.day_begins(ASKED_AT, zone) + 86400
    pod = launch(asked_at=midnight - HOUR_S)
    (cost,) = money.costs([pod], midnight + 2 * HOUR_S, zone=zone)

    assert cost.total_usd == pytest.approx(3.0)
    assert cost.today_usd == pytest.approx(2.0)


def test_costs_are_added_up_by_model_and_notebook_and_real_money_stays_apart() -> None:
    pods = [
        launch(id="a", model="tiny", notebook="x.ipynb"),
        launch(id="b", model="tiny", notebook="y.ipynb"),
        launch(id="c", model="tiny", simulated="yes"),
        launch((0, "rent.refused", {"why": "no stock"}), id="d", live=False),
    ]
    now = ASKED_AT + HOUR_S

    by_model = {(cost.of, cost.simulated): cost for cost in money.costs(pods, now, by="model")}
    assert by_model["tiny", False].total_usd == pytest.approx(2.0)
    assert by_model["tiny", False].pods == 2
    assert by_model["tiny", True].total_usd == pytest.approx(1.0)
    assert {cost.of for cost in money.costs(pods, now, by="notebook")} == {"x.ipynb", "y.ipynb", ""}
    assert len(money.costs(pods, now)) == 3


def test_nothing_more_is_started_than_may_live() -> None:
    pods = [launch(id="a"), launch(id="b", live=False)]

    with pytest.raises(Refused, match="2 rented pods may be billed now"):
        money.check_order(pods, 1.0, Caps(max_pods=2), ASKED_AT)
    assert money.check_order(pods, 1.0, Caps(max_pods=3), ASKED_AT) == ()
    assert money.check_order(pods, 1.0, Caps(max_pods=1), ASKED_AT, simulated=True) == ()


def test_nothing_is_started_that_the_caps_would_end_at_once() -> None:
    zone_free_now = ASKED_AT + 30 * 86400 + 10 * HOUR_S  # the pod ran a month and more before
    gone = [(10 * HOUR_S, "rent.absent", {}), (10.1 * HOUR_S, "rent.absent", {}), (11 * HOUR_S, "rent.ended", {})]
    pods = [launch(*gone)]

    with pytest.raises(Refused, match="money.total_usd"):
        try:
            money.check_order(pods, 1.0, Caps(total_usd=10.1), zone_free_now)
        except Refused as error:
            raise Refused(error.hint) from error
    (note,) = money.check_order(pods, 1.0, Caps(total_usd=12), zone_free_now)
    assert "used up in 2 h" in note
    assert money.check_order(pods, 1.0, Caps(per_day_usd=24.5), zone_free_now) == ()


def test_the_worst_case_is_the_lease_where_the_switch_was_heard() -> None:
    pod = launch((70, "rent.armed", {}), policy=Policy(lease_s=600, deadline_at=ASKED_AT + 10 * HOUR_S))
    worst = money.worst_case(pod, ASKED_AT + HOUR_S, Protection.PROTECTED, lease_left_s=540)

    assert worst.usd == pytest.approx(1 + (540 + money.GRACE_S) / HOUR_S)
    assert worst.until == ASKED_AT + HOUR_S + 540 + money.GRACE_S
    by_a_kernel = money.worst_case(pod, ASKED_AT + HOUR_S, Protection.PARTLY, lease_left_s=540)
    assert by_a_kernel == worst, "a switch that was just heard is as good whoever has heard it"


def test_the_worst_case_is_a_limit_of_its_own_where_the_switch_was_armed_once() -> None:
    pod = launch((70, "rent.armed", {}), policy=Policy(budget_usd=3.0))
    worst = money.worst_case(pod, ASKED_AT + HOUR_S, Protection.PARTLY)

    assert worst.usd == pytest.approx(3 + money.GRACE_S / HOUR_S)
    assert "budget" in worst.why


@pytest.mark.parametrize("protection", [Protection.PARTLY, Protection.UNPROTECTED])
def test_there_is_no_bound_where_nobody_else_would_end_it(protection: Protection) -> None:
    worst = money.worst_case(launch(policy=Policy(budget_usd=3.0)), ASKED_AT, protection)

    assert worst.usd is None
    assert "until the account has no money left" in worst.why


def test_what_was_only_asked_for_costs_at_worst_what_its_switch_lets_it() -> None:
    """As long as its order may be on its way that is counted from now; behind that it grows no more."""
    asked = launch(live=False, policy=Policy(lease_s=600))
    gone = launch((30, "rent.unclear", {"why": "nobody knows"}), live=False, policy=Policy(lease_s=600))
    alone_s = money.ARMED_S + money.FIRST_WORD_S + money.GRACE_S

    now = ASKED_AT + 120
    for pod, from_s in ((asked, 120.0), (gone, 30.0)):
        worst = money.worst_case(pod, now, Protection.UNPROTECTED)
        assert worst.usd == pytest.approx((from_s + alone_s) / HOUR_S)
        assert worst.until == ASKED_AT + from_s + alone_s
        assert "nothing of it was seen yet; if it came, its switch ends it 15 min after its start" in worst.why


def test_a_switch_waits_for_a_first_word_as_long_as_is_told() -> None:
    from podlab.remote.watchdog import Config

    assert Config({"launch": "l1", "policy": {"lease_s": 600}}).grace_s == money.FIRST_WORD_S
    assert Config({"launch": "l1", "policy": {"lease_s": 3600}}).grace_s == 3600


def test_a_stopped_pods_disk_has_no_bound_either() -> None:
    pod = launch((70, "rent.armed", {}), (HOUR_S, "rent.state", state(RentalState.STOPPED)))

    assert money.worst_case(pod, ASKED_AT + 2 * HOUR_S, Protection.PROTECTED).usd is None


@pytest.fixture
def market(tmp_path: Path) -> Market:
    def provider(name: str) -> Provider:
        raise AssertionError("money asks no provider")

    clock = [ASKED_AT]
    """The last of them is now."""
    return Market(Ledger(tmp_path / "ledger.jsonl", now=lambda: clock[-1]), provider, lambda: clock[-1], clock.append)


def one_that_lives(market: Market, policy: Policy) -> Launch:
    market.ledger.append("rent.ask", "l1", **ask(1.0, policy))
    market.ledger.append("rent.live", "l1", rental="r1")
    return ledger_of.open_launches(market.ledger)[0]


def answered(work: Work[Launch], answer: bool | None) -> tuple[Launch, list[Ask]]:
    asked = []
    sent = None
    while True:
        try:
            event = work.send(sent)
        except StopIteration as end:
            return end.value, asked
        if isinstance(event, Ask):
            asked.append(event)
        sent = answer


def test_more_money_is_asked_for_and_a_new_serial_is_written(market: Market) -> None:
    policy = Policy(deadline_at=ASKED_AT + HOUR_S, budget_usd=5.0)
    pod = one_that_lives(market, policy)
    longer = money.extended(policy, ASKED_AT + 600, more_s=HOUR_S)

    with pytest.raises(Refused):
        answered(money.change(market, pod, longer, Caps()), False)
    with pytest.raises(Refused, match="Nobody could be asked"):
        answered(money.change(market, pod, longer, Caps()), None)
    assert ledger_of.open_launches(market.ledger)[0].policy == policy

    moved, asked = answered(money.change(market, pod, longer, Caps()), True)
    assert [each.kind for each in asked] == ["price"]
    assert moved.policy == Policy(deadline_at=ASKED_AT + 2 * HOUR_S, budget_usd=5.0)
    assert moved.policy_serial == 1
    again, asked = answered(money.change(market, moved, policy, Caps()), None)
    assert asked == []  # less needs no yes
    assert again.policy_serial == 2


def test_limits_that_somebody_else_moved_while_a_person_was_asked_are_left(market: Market) -> None:
    """A yes is to what stood in the question, which does not take back the idle rule of now."""
    policy = Policy(deadline_at=ASKED_AT + HOUR_S, budget_usd=5.0)
    pod = one_that_lives(market, policy)
    work = money.change(market, pod, replace(policy, budget_usd=10.0), Caps())
    assert isinstance(next(work), Ask)
    stricter, _ = answered(money.change(market, pod, replace(policy, idle_s=600.0), Caps()), None)

    with pytest.raises(Refused, match="were moved elsewhere meanwhile"):
        work.send(True)

    assert ledger_of.find(market.ledger, "l1") == stricter and stricter.policy.idle_s == 600.0


def test_a_stopped_pod_is_extended_by_what_it_costs_when_it_is_started_again(market: Market) -> None:
    """Its hours at the running price until the deadline, and its disk's week behind it; it is not idle meanwhile."""
    policy = Policy(deadline_at=ASKED_AT + HOUR_S, idle_s=600.0)
    one_that_lives(market, policy)
    market.ledger.append("rent.state", "l1", **state(RentalState.STOPPED))
    pod = ledger_of.open_launches(market.ledger)[0]
    now = market.now()
    longer = money.extended(policy, now, more_s=HOUR_S)

    moved, (asked,) = answered(money.change(market, pod, longer, Caps()), True)
    facts = dict(asked.facts)
    left_s = ASKED_AT + 2 * HOUR_S - now + money.GRACE_S
    most = money.spent_usd(pod, now) + left_s / HOUR_S * 1.0 + 7 * 24 * pod.stopped_usd_per_hour
    assert facts["price"] == f"$1.000/h, and ${money.usd_per_hour(pod):.3f}/h while it is stopped"
    assert facts["cap"] == f"up to ${most:.2f}"
    said = money.policy_text(moved.policy, now, stopped=moved.is_stopped)
    assert said.startswith("It is stopped: its disk ends in 7 d") and "started again it ends in " in said
    assert said.index("idle") > said.index("started again")
    assert "takes more time first (--ttl)" in money.policy_text(policy, ASKED_AT + 2 * HOUR_S, stopped=True)


@pytest.mark.parametrize("by", ["day", "total"])
def test_a_pod_is_not_extended_where_a_cap_on_all_pods_would_end_it(market: Market, by: str) -> None:
    """Its hour has cost a dollar; 10 cents are left. Less time needs no money. A cap that is further off is told."""
    now = ASKED_AT + HOUR_S
    policy = Policy(deadline_at=now + HOUR_S, budget_usd=5.0)
    pod = one_that_lives(market, policy)
    today = money.between_usd(pod, money.day_begins(now), now)  # where this runs it may be midnight in between
    caps = Caps(total_usd=1.1) if by == "total" else Caps(per_day_usd=today + 0.1)
    market.pause(now)
    longer, shorter = money.extended(policy, now, more_s=HOUR_S), Policy(deadline_at=now + 60, budget_usd=5.0)

    with pytest.raises(Refused, match=r"\$0.10 of .* are left, which would be used up in 6 min"):
        answered(money.change(market, pod, longer, caps), True)
    assert ledger_of.open_launches(market.ledger)[0].policy == policy
    pod, (asked,) = answered(money.change(market, pod, longer, Caps(total_usd=3.0)), True)
    assert "the $3 for all pods is used up in 2 h" in asked.detail
    moved, _ = answered(money.change(market, pod, shorter, caps), None)
    assert moved.policy == shorter


def test_an_extension_counts_from_the_limit_or_from_now_where_that_has_passed() -> None:
    policy = Policy(deadline_at=ASKED_AT + HOUR_S, budget_usd=2.0)

    assert money.extended(policy, ASKED_AT, more_s=600).deadline_at == ASKED_AT + HOUR_S + 600
    assert money.extended(policy, ASKED_AT + 5 * HOUR_S, more_s=600).deadline_at == ASKED_AT + 5 * HOUR_S + 600
    assert money.extended(policy, ASKED_AT, more_usd=1.5) == Policy(ASKED_AT + HOUR_S, 3.5)
    assert money.extended(Policy(), ASKED_AT, more_s=600, more_usd=1.0) == Policy()


def test_a_pods_money_is_counted_for_what_it_serves(market: Market) -> None:
    market.ledger.append("rent.ask", "l1", **ask(1.0, Policy()))
    for model in ("tiny", "qwen", "tiny"):
        ledger_of.serves(market.ledger, "l1", model)
    ledger_of.serves(market.ledger, "not-rented", "tiny")

    assert len(market.ledger.entries()) == 3
    (cost,) = money.costs(ledger_of.all_launches(market.ledger), ASKED_AT, by="model")
    assert cost.of == "tiny, qwen"


def test_a_volume_costs_from_its_creation_to_its_deletion(market: Market) -> None:
    """Also while no pod uses it, and beside the pods, whose caps it does not count for."""
    volume = Volume("v1", "models", 100, "EU-RO-1")
    volume_costs.note_rented(market.ledger, "runpod", volume, usd_per_month=7.3, simulated=False)
    (kept,) = volume_costs.rented(market.ledger.entries())
    (cost,) = volume_costs.costs([kept], ASKED_AT + 100 * HOUR_S)
    assert cost.of == "volume models"
    assert cost.total_usd == pytest.approx(1.0)
    assert cost.usd_per_hour == pytest.approx(0.01)

    both = volume_costs.with_volumes(money.total([launch()], ASKED_AT + 100 * HOUR_S), [cost])
    assert both.total_usd == pytest.approx(101.0)
    assert both.pods == 1

    volume_costs.note_deleted(market.ledger, "v1")
    volume_costs.note_deleted(market.ledger, "somebody else's")
    (gone,) = volume_costs.rented(market.ledger.entries())
    assert gone.ends_at == ASKED_AT
    assert volume_costs.costs([gone], ASKED_AT + HOUR_S)[0].total_usd == 0
