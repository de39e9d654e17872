"""Offers, plans and costs in terminals of some widths and on a page; what is pretended says so everywhere."""

from __future__ import annotations

import time
from typing import Any

import pytest

from podlab.commands.rent_results import CandidateRow, OfferList, OfferRow, PodPlan
from podlab.display.html import html
from podlab.display.text import text
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
EVERYTHING = (OFFERS, PLAN)


@pytest.mark.parametrize("width", [60, 80, 100, 130])
@pytest.mark.parametrize("value", EVERYTHING, ids=lambda value: type(value).__name__)
def test_it_fits_and_says_that_it_is_simulated(value: Any, width: int) -> None:
    said = shown(value, width)
    assert "simulated" in said.lower()
    assert "simulated" in html(value, now=NOW).lower() and "simulated" in text(value, now=NOW).lower()


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
    assert "cap $3.56 (a budget of $10.00)" in said and "deadline 8 h after it is asked for" in said
    assert "worst case $0.19 if this computer died right after asking for it" in said
    assert "no stock now RTX A6000, RTX A5000" in said and "not among the preferred GPUs L4" in said


def test_a_plan_without_limits_says_so() -> None:
    said = text(PodPlan("lab", "runpod", False, (TRIED,), 0.4), now=NOW)
    assert "none: nothing limits it (no budget)" in said and "may be idle for ever" in said
    assert "simulated" not in said.lower()


def test_a_plan_with_nothing_to_try_says_so() -> None:
    said = text(PodPlan("lab", "runpod", False, REFUSED), now=NOW)
    assert said.startswith("lab cannot be rented from runpod like this.")
    assert "no stock now" in said and "cap" not in said
