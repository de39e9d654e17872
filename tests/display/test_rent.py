"""Offers, plans and costs in terminals of some widths and on a page; what is pretended says so everywhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from podlab.commands.rent_results import (
    CandidateRow,
    CostList,
    CostRow,
    DoctorReport,
    OfferList,
    OfferRow,
    OrphanList,
    OrphanRow,
    PodPlan,
    RentalDetail,
)
from podlab.commands.results import PodDetail, PodList
from podlab.display.html import html
from podlab.display.text import text
from podlab.types import Check, Pod, PodState, PodStatus, SshAddress
from tests.display.test_widths import flat, shown

NOW = time.time()
GIB = 2**30
PLACES = ("EU-RO-1", "EU-SE-1", "US-TX-3", "US-KS-2", "CA-MTL-1")
OFFERS = OfferList(
    (
        OfferRow("A40", "NVIDIA A40", 1, "secure", 0.44, 48 * GIB, "high", PLACES, True, "It has room for 3 requests."),
        OfferRow("RTX PRO 6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 2, "community", 3.58, 96 * GIB, "low"),
        OfferRow("L4", "NVIDIA L4", 1, "secure", None, 24 * GIB, "none", (), False, "Its weights do not fit."),
    ),
    "sandbox", True, "qwen3-8b",
)  # fmt: skip
TRIED = CandidateRow("A40", "NVIDIA A40", 1, "secure", 0.4456, "high", PLACES[:2])
REFUSED = tuple(
    CandidateRow(gpu, f"NVIDIA {gpu}", 1, "secure", 1.0, "none", (), why)
    for gpu, why in [
        ("RTX A6000", "no stock now"), ("RTX A5000", "no stock now"), ("L4", "not among the preferred GPUs"),
        ("H200", "$3.59/h is more than $1.00/h"),
    ]
)  # fmt: skip
PLAN = PodPlan(
    "lab", "sandbox", True, (TRIED, *REFUSED), 0.4456, 0.0056, 0.0111, 10.0, 28800.0, 1800.0, 600.0, 3.56, 0.19,
    "its switch ends it 10 min after the last word from here", "runpod/pytorch:2.8.0-py3.11-cuda12.8.1",
)  # fmt: skip
HEARD = "its switch is armed, and the keeper tends it"
RENTAL = RentalDetail(
    "podlab-2026-11-25-001", "l1", "sandbox", True, "running", "podlab-2026-11-25-001-ab12cd34", "x8k2p0q7", "A40", 1,
    "secure", "EU-SE-1", 0.4056, 1.23, 1.2, 10.0, NOW + 4 * 3600, 1800.0, 600.0, NOW - 3 * 3600, 10_700.0, "protected",
    HEARD, 1.34, NOW + 720, "its switch ends it 10 min after the last word from here", model="qwen3-8b",
    notebook="rent.ipynb",
)  # fmt: skip
ALONE = RentalDetail(
    "lab", "l2", "runpod", False, "running", gpu="H100", gpu_count=2, usd_per_hour=5.98, spent_usd=2.5,
    protection="unprotected", protection_detail="its switch was not heard yet, and nobody here tends it",
    worst="nobody else ends it: it is billed until the account has no money left",
)  # fmt: skip
OVER = RentalDetail(
    "old", "l3", "runpod", False, "ended", gpu="L4", spent_usd=0.4, ended_at=NOW - 7200, why="a person said so"
)
STATUS = PodStatus(
    Pod(RENTAL.name, "l1", "sandbox", SshAddress("127.0.0.1", "root", 40123), None, "x8k2p0q7"), PodState.REACHABLE, NOW
)
PODS = PodList((STATUS,), (RENTAL, ALONE, OVER))
DETAIL = PodDetail(STATUS, rental=RENTAL)
COSTS = CostList(
    (
        CostRow("qwen3-8b", 0.4, 1.2, 3.4, 0.44, 3.1, -0.05, 3, 1), CostRow("", 0.0, 0.2, 0.2, 0.0, None, None, 1, 0),
        CostRow("tiny", 0.01, 0.01, 0.01, 0.41, None, None, 1, 1, True),
    ),
    "model", CostRow("", 0.4, 1.4, 3.6, 0.44, 3.1, -0.05, 4, 1),
    CostRow("", 0.01, 0.01, 0.01, 0.41, None, None, 1, 1, True), 5.0, 20.0,
)  # fmt: skip
ORPHANS = OrphanList(
    (
        OrphanRow("lab", "runpod", False, "ours", "running", "it is in no list of pods here", 0.44, "x8k2", "l2",
                  NOW - 60, "podlab pod claim lab, or podlab pod terminate lab"),
        OrphanRow("render-7", "sandbox", True, "foreign", "stopped", "not rented from here: podlab never touches it"),
    ),
    ("runpod", "sandbox"), 2, ("runpod could not be asked: 503",),
)  # fmt: skip
DOCTOR = DoctorReport(
    False, "sandbox", True,
    (Check("key", "ok", "accepted"), Check("clock", "failed", "12 min ahead of the company's", "Set the clock.")),
)  # fmt: skip
EVERYTHING = (OFFERS, PLAN, PODS, DETAIL, COSTS, ORPHANS, DOCTOR)


@pytest.mark.parametrize("width", [60, 80, 100, 130])
@pytest.mark.parametrize("value", EVERYTHING, ids=lambda value: type(value).__name__)
def test_it_fits_and_says_that_it_is_simulated(value: Any, width: int) -> None:
    said = shown(value, width)
    assert "simulated" in said.lower()
    assert "simulated" in html(value, now=NOW).lower() and "simulated" in text(value, now=NOW).lower()


def test_of_thousands_that_are_over_the_first_are_shown_and_how_many_more_there_are() -> None:
    """What may cost money is always shown, wherever it stands; who names a number is shown that many."""
    over = tuple(replace(OVER, name=f"old-{number}") for number in range(3000))
    for value, last in (
        (PodList((), (*over[:100], ALONE, *over[100:])), "2950 more that are over are not shown. All: --limit 3000"),
        (PodList((), (ALONE, *over[:70]), 70, 30), "30 more that are over are not shown. All: --limit 100"),
        (PodList((), (ALONE, *over[:70]), 70), ""),
    ):  # fmt: skip
        said = text(value, now=NOW)
        assert last in said and ("more that are over" in said) == bool(last)
        assert sum(line.startswith("old-") for line in said.splitlines()) == (50 if value.limit is None else 70)
        assert any(line.startswith("lab ") for line in said.splitlines())
        assert len(html(value, now=NOW)) < 200_000
    costs = tuple(CostRow(f"old-{number}", 0.0, 0.0, 1.0, 0.0, open_pods=0) for number in range(3000))
    said = text(replace(COSTS, by="pod", costs=(*costs, CostRow("now", 1.0, 1.0, 1.0, 1.0, open_pods=1))), now=NOW)
    assert "2950 more that are over" in said and sum("old-" in line for line in said.splitlines()) == 50
    assert any(line.startswith("now ") for line in said.splitlines())


def test_many_simulated_names_are_counted() -> None:
    rentals = tuple(replace(RENTAL, name=f"sim-{number}") for number in range(30))
    assert "Simulated: sim-0, sim-1, sim-2, sim-3, sim-4, sim-5, sim-6, sim-7 and 22 more." in text(
        PodList((), rentals), now=NOW
    )


@pytest.mark.parametrize("width", [60, 80, 130])
def test_an_offer_keeps_its_price_its_stock_and_its_memory(width: int) -> None:
    (line,) = (line for line in shown(OFFERS, width).splitlines() if line.startswith("A40"))
    assert all(part in line for part in ("$0.44/h", "high", "48.0 GiB", "yes"))
    (two,) = (line for line in shown(OFFERS, width).splitlines() if line.startswith("2x RTX PRO 6000"))
    assert "$3.58/h" in two and "low" in two


def test_many_places_are_counted() -> None:
    assert "EU-RO-1, EU-SE-1, US-TX-3, 2 more" in text(OFFERS, now=NOW)


@pytest.mark.parametrize("width", [60, 80, 130])
def test_a_plan_has_a_price_sheet_and_a_reason_for_each_refusal(width: int) -> None:
    said = flat(shown(PLAN, width))
    assert "lab would be rented from sandbox, as the first of these that can be had:" in said
    assert "price $0.45/h, of that $0.0056/h for its disk; stopped $0.011/h" in said
    assert "cap $3.56 (by its deadline; its budget is $10.00)" in said and "deadline 8 h after it is asked for" in said
    assert "worst case $0.19 if this computer died right after asking for it" in said
    assert "no stock now RTX A6000, RTX A5000" in said and "not among the preferred GPUs L4" in said


def test_a_stopped_pod_is_said_to_end_by_what_can_end_it() -> None:
    """Nothing on it is idle and no switch runs there; its disk is kept for a week behind its deadline."""
    stopped = replace(RENTAL, state="stopped", protection="partly")
    said = flat(text(stopped, now=NOW))
    assert "limits ends in 7 d 4 h or at $10.00, if this computer is there to end it" in said
    table = flat(shown(PodList((), (stopped,)), 200))
    assert "in 7 d 4 h" in table


def test_a_pod_whose_end_is_asked_for_is_not_said_to_end_at_its_limits() -> None:
    ending = replace(RENTAL, state="ending", protection="partly")
    said = flat(text(ending, now=NOW))
    assert "its end is asked for; it counts as billed until that is proven" in said and "ends in 4 h" not in said
    table = flat(shown(PodList((), (ending, ending)), 200))
    assert "in 4 h" not in table and "partly protected" not in table
    assert f"Simulated: {ending.name}." in table, "a name that two had is said once"


def test_a_list_of_pods_that_cannot_be_read_is_not_called_empty() -> None:
    assert "No pods in the list." in text(PodList((), (RENTAL,)), now=NOW)
    said = text(PodList((), (RENTAL,), unread="config.toml is no TOML"), now=NOW)
    assert "No pods" not in said and RENTAL.name in said


def test_a_plan_says_which_limit_its_cap_is() -> None:
    assert "cap $2.02 (by its budget of $2.00)" in flat(text(replace(PLAN, budget_usd=2.0, cap_usd=2.015), now=NOW))
    assert "cap $3.56 (by its deadline; no budget)" in flat(text(replace(PLAN, budget_usd=None), now=NOW))


def test_a_plan_without_limits_says_so() -> None:
    said = text(PodPlan("lab", "runpod", False, (TRIED,), 0.4), now=NOW)
    assert "none: nothing limits it (no budget)" in said and "may be idle for ever" in said
    assert "simulated" not in said.lower()


def test_a_plan_with_nothing_to_try_says_so() -> None:
    said = text(PodPlan("lab", "runpod", False, REFUSED), now=NOW)
    assert said.startswith("lab cannot be rented from runpod like this.")
    assert "no stock now" in said and "cap" not in said


@pytest.mark.parametrize("width", [60, 80, 130])
def test_a_rented_pod_shows_its_price_its_cost_and_its_protection_in_words(width: int) -> None:
    """Whatever the width: what it costs, what ends it, how sure that is, and what it costs if this computer died."""
    said = flat(shown(DETAIL, width))
    assert "price $0.41/h" in said and "has cost $1.23, of which $1.20 are billed" in said
    assert "limits ends in 4 h, at $10.00, when idle for 30 min or 10 min after the last word from here" in said
    assert f"protection protected: {HEARD}" in said
    assert "worst case $1.34 if this computer died now: its switch ends it 10 min after" in said
    assert "rented from sandbox (simulated)" in said


@pytest.mark.parametrize("width", [60, 80, 130])
def test_the_list_names_what_nothing_would_end(width: int) -> None:
    said = shown(PODS, width)
    assert "lab is unprotected: its switch was not heard yet, and nobody here tends it" in flat(said)
    line = next(line for line in said.splitlines() if line.startswith("lab "))
    assert "$5.98/h" in line and "unprotected" in line
    assert width < 80 or ("$2.50" in line and "1 h 59 min ago" in said), "one that has ended says when"


def test_a_port_that_is_open_to_everybody_says_so() -> None:
    """The company's proxy has no login, and cuts long answers: a tunnel is named instead."""
    url = "https://x8k2-8000.proxy.example"
    said = text(replace(RENTAL, public_urls=(url,)), now=NOW)
    assert url in said and "no login stands before it" in said and "podlab pod tunnel open" in said
    assert "no login" not in text(RENTAL, now=NOW)


def test_the_badge_is_a_word_and_a_symbol_on_a_page() -> None:
    page = html(PODS, now=NOW)
    assert ">unprotected<" in page.replace("</span>unprotected", ">unprotected")
    assert ">protected<" in page.replace("</span>protected", ">protected")
    assert "color:#" not in page.replace(" ", "")


def test_pretended_money_is_never_added_to_real_money() -> None:
    said = text(COSTS, now=NOW)
    assert "In all $3.60 of $20.00, this month $1.40, today $0.40 of $5.00 a day; $0.44/h now." in said
    assert "In all $0.010, this month $0.010, today $0.010; $0.41/h now. All of it pretended." in said
    assert said.index("no model") < said.index("Simulated: sandbox") < said.index("tiny")
    assert "-$0.050" in said, "the bill less our own figure"


def test_orphans_say_whose_they_are_and_what_to_do() -> None:
    said = flat(shown(ORPHANS, 130))
    assert "1 of ours is not where it should be. Asked: runpod, sandbox (simulated)." in said
    assert "podlab pod claim lab, or podlab pod terminate lab" in said and "never touches it" in said
    assert "runpod could not be asked: 503" in said
    assert text(OrphanList((), ("runpod",), 1), now=NOW) == (
        "Nothing of ours is orphaned; 1 rented pod of ours is known. Asked: runpod."
    )
    assert "is not known" in text(OrphanList((), (), 0, ("runpod could not be asked: 503",)), now=NOW)


def test_the_doctor_begins_with_its_verdict() -> None:
    said = text(DOCTOR, now=NOW)
    assert "1 of 2 checks failed: pods of sandbox cannot be rented safely." in said
    assert "Set the clock." in said and "took" not in said
