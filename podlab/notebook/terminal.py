"""Terminal IPython as the audience of a verb: plain text, everything in the order it comes."""

from __future__ import annotations

import sys
import time
from typing import Any

from podlab.commands.results import Reply
from podlab.display import sanitize
from podlab.display.progress import stage_text
from podlab.events import Answer, Ask, Chunk, Notice, Stage
from podlab.notebook.asking import typed
from podlab.notebook.streams import Streams
from podlab.secrets import redact
from podlab.types import JobRow, LogLines


class TerminalAudience:
    """One run of one verb in terminal IPython. Stages and notices go to stderr, output and answers to stdout."""

    def __init__(self, *, stages: bool = True) -> None:
        self._stages_wanted = stages
        self._last_key = ""
        self._began = time.monotonic()
        self._answered = False
        self.streams = Streams()

    def stage(self, stage: Stage) -> None:
        """A line for each new stage, once the verb takes longer than a second."""
        elapsed_s = time.monotonic() - self._began
        if self._stages_wanted and stage.key != self._last_key and elapsed_s >= 1:
            self._last_key = stage.key
            sys.stderr.write(stage_text(stage, elapsed_s) + "\n")

    def chunk(self, chunk: Chunk) -> None:
        """Output and answers as they come, whole lines of them; reasoning is kept for the value."""
        if chunk.stream == "reasoning":
            return
        if chunk.stream == "answer":
            self._answered = True
        self.streams.write(chunk.text, "stderr" if chunk.stream == "stderr" else "stdout")

    def notice(self, notice: Notice) -> None:
        """A line on stderr."""
        mark = "Warning: " if notice.level == "warning" else ""
        sys.stderr.write(f"{mark}{sanitize.line(redact(notice.text))}\n")

    def ask(self, ask: Ask) -> Answer:
        """Asked where a person sits at the terminal."""
        self.streams.flush()
        return typed(ask) if sys.stdin is not None and sys.stdin.isatty() else None

    def shows(self, value: Any) -> bool:
        """Whether what was written already says all that `value` would."""
        if isinstance(value, Reply):
            return self._answered
        return isinstance(value, (JobRow, LogLines)) and self.streams.used

    def close(self, value: Any = None, problem: str = "") -> None:
        """End the last line."""
        self.streams.flush()
        if self._answered:
            sys.stdout.write("\n")
