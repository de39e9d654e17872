"""A question as lines of text, and what somebody typed as its answer. Pure."""

from __future__ import annotations

from podlab.display import sanitize
from podlab.events import Answer, Ask

TRIES = 3
"""How often somebody is asked who types what is no answer."""


def lines(ask: Ask) -> list[str]:
    """What stands above the prompt: the detail, and the choices with their numbers."""
    detail = sanitize.block(ask.detail).splitlines() if ask.detail else []
    wide = len(str(len(ask.choices)))
    numbered = [f"  {number:>{wide}}. {sanitize.line(choice)}" for number, choice in enumerate(ask.choices, 1)]
    return [*detail, *numbered]


def prompt(ask: Ask, yes_or_no: str) -> str:
    """The question itself, and how to answer it. `yes_or_no` is what stands behind one that takes yes or no."""
    question = sanitize.line(ask.question)
    if ask.kind == "choice":
        return f"{question} [1-{len(ask.choices)}] "
    if ask.kind == "text":
        return f"{question} [{sanitize.line(ask.default)}] " if ask.default else f"{question} "
    return f"{question} {yes_or_no} "


def answer(ask: Ask, typed: str) -> Answer:
    """What was typed, as an answer: yes or no, the place of a choice (from 0), or text. None: it is none."""
    said = typed.strip()
    if ask.kind == "text":
        return said or ask.default
    if ask.kind == "choice":
        number = int(said) if said.isascii() and said.isdecimal() and len(said) < 9 else 0
        return number - 1 if 1 <= number <= len(ask.choices) else None
    return said.lower() in ("y", "yes")
