"""A question as lines of text and as buttons, and what somebody typed as its answer. Pure."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from podlab.display import sanitize
from podlab.events import Answer, Ask

TRIES = 3
"""How often somebody is asked who types what is no answer."""
HANG = "  "
"""What a fact's line begins with; where such a line is folded, the rest is set in further."""
_MOST_BUTTONS = 12


class Button(NamedTuple):
    """What a button says, and what would be typed at the prompt to say the same."""

    label: str
    typed: str


def lines(ask: Ask) -> list[str]:
    """What stands above the prompt: the facts, the detail, and the choices with their numbers."""
    names = max((len(name) for name, _ in ask.facts), default=0)
    facts = [f"{HANG}{sanitize.line(name):<{names}}  {sanitize.line(value)}" for name, value in ask.facts]
    detail = sanitize.block(ask.detail).splitlines() if ask.detail else []
    wide = len(str(len(ask.choices)))
    numbered = [f"  {number:>{wide}}. {sanitize.line(choice)}" for number, choice in enumerate(ask.choices, 1)]
    return [*facts, *detail, *numbered]


def prompt(ask: Ask, yes_or_no: str) -> str:
    """The question itself, and how to answer it. `yes_or_no` is what stands behind one that takes yes or no."""
    question = sanitize.line(ask.question)
    if ask.kind == "choice":
        return f"{question} [1-{len(ask.choices)}] "
    if ask.kind == "text":
        return f"{question} [{sanitize.line(ask.default)}] " if ask.default else f"{question} "
    return f"{question} {yes_or_no} "


def buttons(ask: Ask) -> tuple[Button, ...]:
    """The answers as buttons; none for more choices than a page has room for.

    The last one of a question that takes yes or no is no. A text is typed, and its button keeps what it would be.
    """
    if ask.kind == "text":
        return (
            (Button(textwrap.shorten(f"Keep {sanitize.line(ask.default)}", 60, placeholder=" …"), ""),)
            if ask.default
            else ()
        )
    if len(ask.choices) > _MOST_BUTTONS:
        return ()
    if ask.kind == "choice":
        return tuple(Button(f"{number}. {_name(choice)}", str(number)) for number, choice in enumerate(ask.choices, 1))
    return Button(sanitize.line(ask.yes), "y"), Button("No", "n")


def _name(choice: str) -> str:
    """What a choice is called: the words before its colon, where there is one."""
    return sanitize.line(choice).partition(": ")[0]


def said(ask: Ask, answer: Answer) -> str:
    """What remains of a question: how it was answered, in a sentence. None: not at all."""
    if answer is None:
        return "Not answered." if ask.kind in ("choice", "text") else "Not answered, so not agreed to."
    if isinstance(answer, bool):
        return f"Answered: {sanitize.line(ask.yes) if answer else 'No'}."
    if isinstance(answer, int):
        return f"Answered: {_name(ask.choices[answer])}."
    return f"Answered: {sanitize.line(answer) or 'nothing'}."


def answer(ask: Ask, typed: str) -> Answer:
    """What was typed, as an answer: yes or no, the place of a choice (from 0), or text. None: it is none."""
    said = typed.strip()
    if ask.kind == "text":
        return said or ask.default
    if ask.kind == "choice":
        number = int(said) if said.isascii() and said.isdecimal() and len(said) < 9 else 0
        return number - 1 if 1 <= number <= len(ask.choices) else None
    return said.lower() in ("y", "yes")
