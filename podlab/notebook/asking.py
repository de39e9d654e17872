"""A question of a verb, put to whoever sits at a notebook or a terminal IPython."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from IPython.display import publish_display_data

from podlab.display import questions
from podlab.display.html import ask_html
from podlab.events import Answer, Ask
from podlab.secrets import redact

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from podlab.notebook.buttons import Buttons

_YES_OR_NO = "[y/N]"
_MARKS = {"price": "go", "host_key": "go", "command": "go", "delete": "end"}
"""Kind of question -> how the button that says yes is marked."""


def typed(ask: Ask) -> Answer:
    """What is typed at a prompt; None when there turned out to be nobody, or no choice was made."""
    return _typed(ask, "".join(f"{line}\n" for line in questions.lines(ask)))


def in_cell(ask: Ask, shell: InteractiveShell, *, buttons: bool) -> Answer:
    """Asked below the cell: what the answer rests on, buttons where the page can have them, and the input prompt.

    None when there turned out to be nobody, or no choice was made.
    """
    ask = replace(
        ask, question=redact(ask.question), detail=redact(ask.detail),
        facts=tuple((name, redact(value)) for name, value in ask.facts),
    )  # fmt: skip
    from podlab.notebook.buttons import possible

    row = questions.buttons(ask) if buttons and possible(shell) else ()
    if row or ask.facts or ask.detail or ask.choices:
        said = "\n".join([ask.question, *questions.lines(ask)])
        publish_display_data({"text/html": ask_html(ask), "text/plain": said})  # type: ignore[no-untyped-call]
    with _beside(ask, row) as panel:
        answer = _typed(ask, "")
        if panel is not None:
            panel.said = questions.said(ask, answer)
    return answer


@contextlib.contextmanager
def _beside(ask: Ask, row: Sequence[questions.Button]) -> Iterator[Buttons | None]:
    """Buttons while the body runs; None where there are none, and the prompt has to do."""
    from podlab.notebook.buttons import Buttons

    if not row:
        yield None
        return
    try:
        panel = Buttons(
            questions.prompt(ask, _YES_OR_NO), row, said=questions.said(ask, None), first=_MARKS.get(ask.kind, ""),
            escape=ask.kind not in ("choice", "text"), alone=ask.kind != "text",
        )  # fmt: skip
    except ImportError:  # a lean installation
        yield None
        return
    with panel:
        yield panel


def _typed(ask: Ask, above: str) -> Answer:
    for _ in range(questions.TRIES):
        try:
            said = input(above + questions.prompt(ask, _YES_OR_NO))
        except (EOFError, NotImplementedError):  # ipykernel's StdinNotImplementedError is a NotImplementedError
            return None
        if (found := questions.answer(ask, said)) is not None:
            return found
        above = ""
    return None
