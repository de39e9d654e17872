"""A notebook cell as the audience of a verb: stages and answers in place, output as it comes, questions below it."""

from __future__ import annotations

import time
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import publish_display_data

from podlab.commands.results import Reply
from podlab.display import sanitize
from podlab.display.html import html, line_html, notice_html, prose_html, stage_html
from podlab.display.progress import spent_text, stage_lines
from podlab.display.text import text
from podlab.events import Answer, Ask, Chunk, Notice, Stage
from podlab.notebook import asking
from podlab.notebook.live import Bundle, Live
from podlab.notebook.streams import Streams
from podlab.secrets import redact
from podlab.types import JobRow, LogLines
from podlab.units import duration_text

_STAGES_PER_S = 10
_ANSWERS_PER_S = 12
_STAGE_DELAY_S = 1.0


class CellAudience:
    """One run of one verb in one cell. `close` must be called, whatever happened."""

    def __init__(self, shell: InteractiveShell, *, stages: bool = True, buttons: bool = True) -> None:
        self._shell = shell
        self._stages_wanted = stages
        self._buttons_wanted = buttons
        self._began = self._stage_began = time.monotonic()
        self._stage: Stage | None = None
        self._spent: list[tuple[str, float]] = []
        self._progress = self._new_progress()
        self._answer: list[str] = []
        self._reasoning: list[str] = []
        self._said = Live(self._answer_bundle, per_second=_ANSWERS_PER_S)
        self.streams = Streams()

    def stage(self, stage: Stage) -> None:
        """Long work moved on: shown from the first second of the verb on, in one line that is updated."""
        if not self._stages_wanted:
            return
        if self._stage is None or self._stage.key != stage.key:
            self._end_stage()
            self._stage_began = time.monotonic()
        self._stage = stage
        self._progress.touch()

    def chunk(self, chunk: Chunk) -> None:
        """A command's output goes to the cell's streams; an answer grows in its own place."""
        self._end_stage()
        if not self._progress.visible:  # what is shown already says that it goes on
            self._progress.end()
            self._progress = self._new_progress()
        if chunk.stream in ("stdout", "stderr"):
            self.streams.write(chunk.text, chunk.stream)
            return
        self.streams.flush()
        (self._answer if chunk.stream == "answer" else self._reasoning).append(chunk.text)
        self._said.touch()

    def notice(self, notice: Notice) -> None:
        """A sentence of its own."""
        self.streams.flush()
        notice = Notice(redact(notice.text), notice.level)
        mark = "Warning: " if notice.level == "warning" else ""
        _publish({"text/html": notice_html(notice), "text/plain": mark + sanitize.line(notice.text)})

    def ask(self, ask: Ask) -> Answer:
        """Ask below the cell; None where the notebook runs without anybody to answer."""
        self.streams.flush()
        kernel = getattr(self._shell, "kernel", None)
        if kernel is None or not kernel._allow_stdin:
            return None
        self._end_stage()
        self._progress.end(self._last_stage_bundle(""))
        try:
            return asking.in_cell(ask, self._shell, buttons=self._buttons_wanted)
        finally:  # the time that a person takes is no work's
            self._spent, self._began = [], time.monotonic()
            self._progress = self._new_progress()

    def shows(self, value: Any) -> bool:
        """Whether what the cell shows already says all that `value` would."""
        if isinstance(value, Reply):
            return self._said.visible
        return isinstance(value, (JobRow, LogLines)) and self.streams.used

    def close(self, value: Any = None, problem: str = "") -> None:
        """End every output: exact when there is a value; with `problem`, what had come stays, and why it ended."""
        self.streams.flush()
        self._end_stage()
        self._progress.end(self._last_stage_bundle(problem))
        if isinstance(value, Reply):
            self._said.end({"text/html": html(value), "text/plain": text(value)})
        else:
            self._said.end(self._answer_bundle(problem or "unfinished", busy=False))

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._spent.append((self._stage.name or self._stage.text, time.monotonic() - self._stage_began))
            self._stage = None

    def _new_progress(self) -> Live:
        return Live(self._stage_bundle, per_second=_STAGES_PER_S, delay_s=_STAGE_DELAY_S, pulse_s=1.0)

    def _stage_bundle(self) -> Bundle:
        stage, elapsed_s = self._stage, time.monotonic() - self._stage_began
        if stage is None:
            return self._last_stage_bundle("")
        return {"text/html": stage_html(stage, elapsed_s), "text/plain": stage_lines(stage, elapsed_s)}

    def _last_stage_bundle(self, problem: str) -> Bundle:
        took_s = time.monotonic() - self._began
        took, spent = duration_text(took_s), spent_text(self._spent, took_s)
        said = f"{problem.capitalize()} after {took}" if problem else f"Took {took}"
        said += f": {spent}" if spent else ""
        return {"text/html": line_html(said), "text/plain": said}

    def _answer_bundle(self, figures: str = "", *, busy: bool = True) -> Bundle:
        answer, reasoning = "".join(self._answer), "".join(self._reasoning)
        shown = prose_html(answer, reasoning=reasoning, figures=figures, busy=busy)
        return {"text/html": shown, "text/plain": sanitize.block(answer)}


def _publish(bundle: Bundle) -> None:
    publish_display_data(bundle)  # type: ignore[no-untyped-call]
