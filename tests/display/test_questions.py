"""Questions as text, and what somebody typed as answers."""

from __future__ import annotations

import pytest

from podlab.display import questions
from podlab.display.html import ask_html
from podlab.events import Answer, Ask

PRICE = Ask("Rent it?", "price", "It costs $0.44 an hour.\nAt most $3.52.")
CHOICE = Ask("Which one?", "choice", choices=tuple(f"machine {number}\x1b[2J" for number in range(12)))
TEXT = Ask("A budget?", "text", default="10")
FACTS = Ask("Rent it?", "price", "Mind \x1b[2Jthis.", facts=(("price", "$0.44/h"), ("worst case", "$1.00")), yes="Rent")


@pytest.mark.parametrize(
    ("ask", "typed", "answer"),
    [
        (PRICE, "y\n", True), (PRICE, " YES ", True), (PRICE, "", False), (PRICE, "yep", False), (CHOICE, "1\n", 0),
        (CHOICE, "12", 11), (CHOICE, "13", None), (CHOICE, "0", None), (CHOICE, "-1", None), (CHOICE, "", None),
        (CHOICE, "²", None), (CHOICE, "y", None), (TEXT, "5\n", "5"), (TEXT, "\n", "10"),
    ],
)  # fmt: skip
def test_answers(ask: Ask, typed: str, answer: Answer) -> None:
    assert questions.answer(ask, typed) == answer


def test_a_question_as_text() -> None:
    """The detail keeps its lines, choices have numbers, and nothing in them steers a terminal."""
    assert questions.lines(PRICE) == ["It costs $0.44 an hour.", "At most $3.52."]
    assert questions.prompt(PRICE, "[yes/no]") == "Rent it? [yes/no] "
    assert questions.lines(CHOICE)[0].startswith("   1. machine 0") and "\x1b" not in "".join(questions.lines(CHOICE))
    assert questions.prompt(CHOICE, "") == "Which one? [1-12] "
    assert questions.prompt(TEXT, "") == "A budget? [10] "


def test_facts_stand_in_columns_before_the_detail() -> None:
    assert questions.lines(FACTS) == ["  price       $0.44/h", "  worst case  $1.00", "Mind this."]
    drawn = ask_html(FACTS)
    assert "<b>Rent it?</b>" in drawn and "worst case" in drawn and "\x1b" not in drawn


def test_a_question_as_buttons_types_what_a_person_would() -> None:
    """Each button is an answer; a text's keeps it, and a choice that a page has no room for has none."""
    assert questions.buttons(FACTS) == (("Rent", "y"), ("No", "n"))
    some = Ask("Which?", "choice", choices=("one: the first", "two"))
    assert questions.buttons(some) == (("1. one", "1"), ("2. two", "2"))
    assert questions.buttons(TEXT) == (("Keep 10", ""),) and questions.answer(TEXT, "") == "10"
    for ask in (FACTS, some, TEXT):
        assert all(questions.answer(ask, button.typed) is not None for button in questions.buttons(ask))
    assert questions.buttons(Ask("A name?", "text")) == ()
    assert questions.buttons(Ask("Which?", "choice", choices=("a",) * 13)) == ()


def test_how_a_question_was_answered_is_a_sentence() -> None:
    some = Ask("Which?", "choice", choices=("one: the first", "two"))
    said = [questions.said(ask, answer) for ask, answer in ((FACTS, True), (FACTS, False), (some, 0), (TEXT, "5"))]
    assert said == ["Answered: Rent.", "Answered: No.", "Answered: one.", "Answered: 5."]
    assert questions.said(FACTS, None) == "Not answered, so not agreed to." and questions.said(some, None)
