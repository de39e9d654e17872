"""The rules that end a pod, and no clock of a computer that could end one early or never."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.lab.brakes import Clocks, Rules, Seen, Verdict, Watched, clocks, decide, look, provider_age_s
from podlab.lab.launches import Launch
from podlab.renting import Armed, Policy, Rental, RentalState
from tests.lab.rentals import ASKED_AT, HOUR_S, launch, rental, state

ARMED = (70.0, "rent.armed", dict[str, str]())


def at(age_s: float, pod: Launch, **seen: object) -> Verdict:
    """The verdict when all clocks agree on a pod's age."""
    return decide(Seen(pod, Clocks(age_s, age_s), **seen))  # type: ignore[arg-type]


def test_a_pod_ends_at_its_deadline() -> None:
    pod = launch(ARMED, policy=Policy(deadline_at=ASKED_AT + HOUR_S))

    assert at(HOUR_S - 1, pod) == Verdict(warnings=("gpu ends at its deadline, in 1.0 s.",))
    assert at(HOUR_S, pod).rule == "deadline"


def test_a_pod_ends_when_its_money_is_used() -> None:
    pod = launch(ARMED, price=2.0, policy=Policy(budget_usd=3.0))

    assert at(HOUR_S, pod).end == ""
    (warning,) = at(1.3 * HOUR_S, pod).warnings
    assert "gpu has used $2.60 of its $3.00" in warning
    assert at(1.5 * HOUR_S, pod).rule == "budget"


def test_the_providers_bill_uses_up_a_budget_too() -> None:
    pod = launch(ARMED, (HOUR_S, "rent.bill", {"usd": "2.5"}), policy=Policy(budget_usd=2.4))

    assert at(HOUR_S, pod).rule == "budget"


def test_a_stopped_pods_disk_outlives_its_deadline_but_not_its_budget() -> None:
    pod = launch(ARMED, (600, "rent.state", state(RentalState.STOPPED)), policy=Policy(deadline_at=ASKED_AT + HOUR_S))
    day_s = 24 * HOUR_S

    assert at(day_s, pod).end == ""
    assert "behind its deadline" in at(day_s, pod).warnings[0]
    assert at(8 * day_s, pod).rule == "deadline"
    assert at(day_s, replace(pod, policy=Policy(budget_usd=1.0))).rule == "budget"
    assert at(day_s, pod, day_cap="the day's $5 is used up").end == ""
    assert at(day_s, pod, total_cap="the $5 for all pods is used up").rule == "total"


def test_a_pod_started_again_is_no_longer_spared() -> None:
    pod = launch(
        ARMED, (600, "rent.state", state(RentalState.STOPPED)), (2 * HOUR_S, "rent.state", state(RentalState.RUNNING)),
        policy=Policy(deadline_at=ASKED_AT + HOUR_S),
    )  # fmt: skip

    assert at(2.1 * HOUR_S, pod).rule == "deadline"


def test_idle_is_what_the_switch_says_now() -> None:
    pod = launch(ARMED, policy=Policy(idle_s=600))

    assert at(HOUR_S, pod, armed=Armed(True, idle_for_s=601)).rule == "idle"
    assert at(HOUR_S, pod, armed=Armed(True, idle_for_s=599)).end == ""
    assert at(HOUR_S, pod, armed=Armed(True, idle_for_s=900, busy=("download",))).end == ""
    assert at(HOUR_S, pod, armed=Armed(True)).end == ""
    assert at(HOUR_S, replace(pod, policy=Policy()), armed=Armed(True, idle_for_s=1e6)).end == ""
    assert at(HOUR_S, pod).end == ""


def test_a_pod_without_an_armed_switch_ends_from_outside() -> None:
    pod = launch()

    assert at(60 + 899, pod, rental=rental()).end == ""
    assert at(60 + 900, pod, rental=rental()).rule == "unarmed"
    assert at(60 + 1800, pod, rental=rental(uptime_s=899)).end == ""  # its image took long
    assert at(60 + 2099, pod, rental=rental(has_runtime=False)).end == ""
    assert at(60 + 2100, pod, rental=rental(has_runtime=False)).rule == "unarmed"
    assert at(60 + 2100, pod).rule == "unarmed"
    said = at(60 + 900, pod, rental=rental(), armed=Armed(False, "it has no key")).end
    assert said == "its switch was not armed within 15 min: it has no key"
    assert at(60, pod, rental=rental(), unarmed_s=900).rule == "unarmed"  # the wall clock was set back meanwhile


def test_a_switch_has_to_be_armed_again_after_a_start() -> None:
    pod = launch(
        ARMED, (600, "rent.state", state(RentalState.STOPPED)), (7200, "rent.state", state(RentalState.STARTING))
    )

    assert at(7200 + 899, pod, rental=rental()).end == ""
    assert at(7200 + 900, pod, rental=rental()).rule == "unarmed"
    assert at(7200 + 900, pod, rental=rental(), armed=Armed(True)).end == ""


def test_a_switch_that_should_have_ended_its_pod_and_did_not_is_no_protection() -> None:
    pod = launch(ARMED, policy=Policy(lease_s=600))

    assert at(HOUR_S, pod, silent_s=719).end == ""
    assert at(HOUR_S, pod, silent_s=720).rule == "silent"
    assert at(HOUR_S, pod, silent_s=720, rental=rental(word=RentalState.STOPPED)).end == ""


def test_a_price_above_what_was_agreed_ends_a_pod() -> None:
    pod = launch(ARMED, price=1.0)  # of which the disk is 0.10

    assert at(HOUR_S, pod, rental=rental(usd_per_hour=0.91)).end == ""
    assert at(HOUR_S, pod, rental=rental(usd_per_hour=0.95)).rule == "price"
    assert at(HOUR_S, pod, rental=rental(usd_per_hour=None)).end == ""
    assert at(HOUR_S, pod, rental=rental(word=RentalState.STOPPED, usd_per_hour=9.0)).end == ""
    later = launch(ARMED, (80, "rent.live", {"rental": "r", "usd_per_hour": "0.5"}), price=1.0)
    assert at(HOUR_S, later, rental=rental(usd_per_hour=0.9)).end == ""  # one's yes was to 1.00


def test_a_broken_pod_ends_and_one_in_a_state_nobody_knows_is_said() -> None:
    broken = launch(ARMED, (600, "rent.state", state(RentalState.ERROR)))

    assert at(899, broken, rental=rental(word=RentalState.ERROR)).end == ""
    assert at(900, broken, rental=rental(word=RentalState.ERROR)).rule == "error"
    assert at(900, broken, rental=rental()).end == ""
    seen = rental(word=RentalState.UNKNOWN, said="HIBERNATING")
    assert "HIBERNATING" in at(900, launch(ARMED), rental=seen).warnings[0]


@pytest.mark.parametrize("verb, live", [("rent.ending", True), ("rent.refused", False), ("rent.unclear", False)])
def test_what_ends_already_or_never_lived_is_not_ended_again(verb: str, live: bool) -> None:
    pod = launch((600, verb, {"why": "x"}), policy=Policy(deadline_at=ASKED_AT + 1), live=live)

    assert at(HOUR_S, pod) == Verdict()


# Clocks. A world in which true time goes on, while a computer's wall clock is set and the computer is started again.


@dataclass(frozen=True)
class Step:
    """True seconds that pass, then what the clock is set by, and whether the computer was started anew."""

    passes_s: float
    set_by_s: float = 0.0
    boots: bool = False


STEPS = st.lists(
    st.builds(
        Step,
        st.floats(1, 3000),
        st.sampled_from([0.0, 0.0, 3600.0, -3600.0, 86400.0, -86400.0, 1e8, -1e8]),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)
LIFE_S = 2 * HOUR_S


def lived(steps: list[Step], provider_says: bool) -> list[tuple[float, Verdict]]:
    """What is decided after each step, with the pod's true age. It is watched from the first step on."""
    pod = launch(ARMED, policy=Policy(deadline_at=ASKED_AT + LIFE_S, lease_s=1e9))
    age_s = offset_s = booted_s = 0.0
    boot = 0
    watched: Watched | None = look(None, pod, ASKED_AT, 0.0, "0")
    found = []
    for step in steps:
        age_s += step.passes_s
        offset_s += step.set_by_s
        if step.boots:
            boot, booted_s = boot + 1, age_s
        now = ASKED_AT + age_s + offset_s
        seen = told(age_s) if provider_says else rental()
        watched = look(watched, pod, now, age_s - booted_s, str(boot))
        found.append((age_s, decide(Seen(pod, clocks(watched, pod, now, seen), seen))))
    return found


def told(age_s: float) -> Rental:
    """What the provider says of that pod; its own clock is an hour off, which nobody can know."""
    ahead = ASKED_AT + 3600
    return rental(created_at=ahead, started_at=ahead + 1, uptime_s=max(0.0, age_s - 1))


@given(STEPS)
def test_no_clock_ends_a_pod_early_where_its_provider_says_how_old_it_is(steps: list[Step]) -> None:
    for age_s, verdict in lived(steps, provider_says=True):
        assert bool(verdict.end) == (age_s >= LIFE_S), (age_s, verdict)


@given(STEPS)
def test_no_clock_ends_a_pod_early_or_never_while_one_computer_watches_it(steps: list[Step]) -> None:
    """Even if its provider says nothing."""
    for age_s, verdict in lived([replace(step, boots=False) for step in steps], provider_says=False):
        assert bool(verdict.end) == (age_s >= LIFE_S), (age_s, verdict)


@given(STEPS)
def test_no_pod_is_immortal_by_a_clock_set_back_before_a_boot(steps: list[Step]) -> None:
    """Watched for its life and with boots in between, it ends at the latest after that long again."""
    tail = [Step(600.0) for _ in range(int(LIFE_S // 600) + 1)]
    assert lived([*steps, *tail], provider_says=False)[-1][1].end


def test_a_provider_whose_times_stand_still_makes_no_pod_immortal() -> None:
    pod = launch(ARMED, policy=Policy(deadline_at=ASKED_AT + LIFE_S))
    stuck = rental(created_at=ASKED_AT, started_at=ASKED_AT, uptime_s=0.0)
    watched = look(look(None, pod, ASKED_AT, 0.0, "a"), pod, ASKED_AT, LIFE_S, "a")

    assert decide(Seen(pod, clocks(watched, pod, ASKED_AT, stuck), stuck)).rule == "deadline"


def test_a_keeper_that_starts_after_the_clock_was_set_forward_asks_the_provider_first() -> None:
    pod = launch(ARMED, policy=Policy(deadline_at=ASKED_AT + LIFE_S, budget_usd=5))
    now = ASKED_AT + 30 * 86400
    watched = look(None, pod, now, 5.0, "b")

    assert decide(Seen(pod, clocks(watched, pod, now, told(600)), told(600))).end == ""
    assert decide(Seen(pod, clocks(watched, pod, now, told(LIFE_S)), told(LIFE_S))).rule == "deadline"


def test_a_providers_times_that_make_no_sense_say_nothing() -> None:
    assert provider_age_s(rental(created_at=9e9, started_at=1.0, uptime_s=1.0)) is None
    assert provider_age_s(rental(uptime_s=5.0)) is None


@given(
    st.floats(0, 1e7),
    st.sampled_from(RentalState),
    st.floats(0, 1e5),
    st.builds(Armed, st.booleans(), idle_for_s=st.none() | st.floats(0, 1e6)),
    st.builds(
        Policy, st.none() | st.floats(ASKED_AT, ASKED_AT + 1e7), st.none() | st.floats(0.01, 1e4),
        st.none() | st.floats(60, 1e5), st.floats(60, 1e5),
    ),
)  # fmt: skip
def test_more_time_never_takes_back_a_verdict(
    age_s: float, word: RentalState, more_s: float, armed: Armed, policy: Policy
) -> None:
    pod = launch(ARMED, policy=policy)
    if at(age_s, pod, armed=armed, rental=rental(word=word)).end:
        assert at(age_s + more_s, pod, armed=armed, rental=rental(word=word)).end


def test_rules_can_be_more_or_less_patient() -> None:
    assert decide(Seen(launch(), Clocks(70, 70)), Rules(pull_s=5)).rule == "unarmed"
