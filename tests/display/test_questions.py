"""Questions as text, and what somebody typed as answers."""

from __future__ import annotations

import pytest

from podlab.display import questions
from podlab.events import Answer, Ask

PRICE = Ask("Rent it?", "price", "It costs $0.44 an hour.\nAt most $3.52.")
CHOICE = Ask("Which one?", "choice", choices=tuple(f"machine {number}\x1b[2J" for number in range(12)))
TEXT = Ask("A budget?", "text", default="10")


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
