"""A terminal as the audience of a verb: progress on stderr, output where it belongs, questions to a person."""

from __future__ import annotations

import shutil
import sys
import textwrap
from types import TracebackType
from typing import TYPE_CHECKING, Self

from podlab.display import progress, questions
from podlab.display.sanitize import line as safe_line
from podlab.events import Answer, Ask, Chunk, Notice, Stage
from podlab.secrets import redact

if TYPE_CHECKING:
    from rich.status import Status


def fitted(text: str, hang: str = "") -> str:
    """A line of words as a person's terminal shows it whole, broken between words; as it is where nobody looks."""
    if not sys.stderr.isatty() or len(text) < (width := shutil.get_terminal_size().columns):
        return text
    return textwrap.fill(
        text, max(40, width - 1), subsequent_indent=hang, break_on_hyphens=False, break_long_words=False,
        drop_whitespace=True,
    )  # fmt: skip


def _hang(line: str) -> str:
    """How far in a fact of a question goes on where it is folded."""
    return 3 * questions.HANG if line.startswith(questions.HANG) else ""


class Terminal:
    """Shows stages as one line that moves on (a line each where stderr is no terminal). `quiet` shows no output."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._status: Status | None = None
        self._last_key = ""
        self._mid_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._clear()
        if self._mid_line:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def stage(self, stage: Stage) -> None:
        text = "\n".join(safe_line(line) for line in progress.stage_lines(stage).split("\n"))
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status
            from rich.text import Text

            if self._status is None:
                self._status = Status(Text(text), console=Console(stderr=True))
                self._status.start()
            else:
                self._status.update(Text(text))
        elif stage.key != self._last_key:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        self._last_key = stage.key

    def chunk(self, chunk: Chunk) -> None:
        self._clear()
        if self._quiet and chunk.stream in ("answer", "reasoning"):
            return  # it is in the document
        if self._quiet or chunk.stream == "stderr":
            sys.stderr.write(chunk.text)
            sys.stderr.flush()
            return
        # A command's output is the user's own and goes through untouched; a model's words must not steer the terminal.
        from podlab.display.sanitize import stream

        is_ours = chunk.stream in ("answer", "reasoning")
        text = stream(chunk.text) if is_ours else chunk.text
        (sys.stderr if chunk.stream == "reasoning" else sys.stdout).write(text)
        sys.stdout.flush()
        self._mid_line = is_ours and chunk.stream == "answer" and not text.endswith("\n")

    def notice(self, notice: Notice) -> None:
        self._clear()
        sys.stderr.write(fitted(safe_line(redact(notice.text))) + "\n")
        sys.stderr.flush()

    def ask(self, ask: Ask) -> Answer:
        self._clear()
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        sys.stderr.write("".join(f"{fitted(line, _hang(line))}\n" for line in questions.lines(ask)))
        for _ in range(questions.TRIES):
            sys.stderr.write(fitted(questions.prompt(ask, "[yes/no]").rstrip()) + " ")
            sys.stderr.flush()
            typed = sys.stdin.readline()
            if not typed:  # the end of input is no answer
                return None
            if (found := questions.answer(ask, typed)) is not None:
                return found
        return None

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
