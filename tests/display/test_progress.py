"""A stage says how far, of how much, and for how long."""

from __future__ import annotations

import pytest

from podlab.display.html import stage_html
from podlab.display.progress import amount_text, spent_text, stage_lines, stage_text
from podlab.events import Stage


@pytest.mark.parametrize(
    "stage, expected",
    [
        (Stage("d", "Downloading", 3_100_000, 12_000_000, "bytes"), "3.1 of 12.0 MB, 25 %"),
        (Stage("d", "Downloading", 900, 12_000_000, "bytes"), "900 B of 12.0 MB, 0 %"),
        (Stage("d", "Downloading", 3_100_000, None, "bytes"), "3.1 MB"),
        (Stage("l", "Loading", 3, 7), "3 of 7, 42 %"),
        (Stage("l", "Loading", 9, 7), "9 of 7, 100 %"),
        (Stage("l", "Loading", 0, 0), "0 of 0"),
        (Stage("l", "Loading"), ""),
    ],
)
def test_the_amount(stage: Stage, expected: str) -> None:
    assert amount_text(stage) == expected


def test_the_time_shows_from_the_first_second_on() -> None:
    stage = Stage("d", "Downloading tiny.", 3, 7)
    assert stage_text(stage, 0.9) == "Downloading tiny: 3 of 7, 42 %"
    assert stage_text(stage, 4.21) == "Downloading tiny: 3 of 7, 42 % (4.2 s)"
    assert stage_text(stage, 63.9) == "Downloading tiny: 3 of 7, 42 % (1 min 3 s)"


def test_a_step_with_a_clock_of_its_own_shows_that_one() -> None:
    stage = Stage("sshd", "lab: reaching it by SSH", clock_s=75.0, name="SSH")
    assert stage_text(stage) == stage_text(stage, 2.0) == "lab: reaching it by SSH (1 min 15 s)"


def test_a_bar_has_a_name_and_is_never_alone() -> None:
    shown = stage_html(Stage("d", "Down<b>", 3, 7), 2)
    assert 'max="7" value="3" aria-label="3 of 7, 42 %">' in shown
    assert "Down&lt;b&gt;: 3 of 7, 42 % (2.0 s)" in shown
    assert "<progress" not in stage_html(Stage("d", "Down", 3), 2)


def test_parts_stand_below_in_lines_of_their_own() -> None:
    stage = Stage("d", "2 files", parts=(Stage("a", "a\nb", 5, 10), Stage("c", "c<d>", 0, None)))
    assert stage_lines(stage).split("\n") == ["2 files", "  [##########----------] a b: 5 of 10, 50 %",
                                              "  [--------------------] c<d>: 0"]  # fmt: skip
    shown = stage_html(stage, 1.0)
    assert shown.count("<progress") == 1 and "c&lt;d&gt;: 0" in shown


def test_what_took_its_time_is_named_in_few_words() -> None:
    """Without the pod at its front, what it was about in detail, and what took no time to speak of."""
    spent = [
        ("Reading what sandbox offers", 1.3), ("Renting A40, secure as lab", 3.7),
        ("lab: start container for runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04: begin (3.0 s)", 5.0),
        ("lab: reaching it by SSH (8.0 s)", 0.5), ("lab: reaching it by SSH (9.1 s)", 0.4), ("Reaching lab.", 0.2),
        ("Waiting for a machine, asked again in 30 s: none is free", 2.0),
    ]  # fmt: skip
    assert spent_text(spent, 13.1) == (
        "Reading what sandbox offers 1.3 s, Renting A40, secure as lab 3.7 s, start container for … 5.0 s, "
        "reaching it by SSH 900 ms, Waiting for a machine, asked again in 30 s 2.0 s"
    )
    assert spent_text([("One", 0.05)], 0.1) == ""
