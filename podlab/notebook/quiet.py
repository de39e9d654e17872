"""Nobody watches: for a line that ends in `;`, and for --json."""

from __future__ import annotations

from typing import Any

from podlab.events import Answer, Ask, Chunk, Notice, Stage
from podlab.notebook.cell import CellAudience
from podlab.notebook.streams import Streams
from podlab.notebook.terminal import TerminalAudience


class QuietAudience:
    """Shows nothing, but still passes on warnings and still asks."""

    def __init__(self, audience: CellAudience | TerminalAudience) -> None:
        self._audience = audience
        self.streams = Streams(mute=True)

    def stage(self, stage: Stage) -> None:
        """Not shown."""

    def chunk(self, chunk: Chunk) -> None:
        """Not shown, but its last line explains a failure."""
        if chunk.stream in ("stdout", "stderr"):
            self.streams.write(chunk.text, chunk.stream)

    def notice(self, notice: Notice) -> None:
        """Warnings are shown."""
        if notice.level == "warning":
            self._audience.notice(notice)

    def ask(self, ask: Ask) -> Answer:
        """Asked all the same: being quiet is no consent."""
        return self._audience.ask(ask)

    def shows(self, value: Any) -> bool:
        """Nothing is on the screen."""
        return False

    def close(self, value: Any = None, problem: str = "") -> None:
        """Note the last line."""
        self.streams.flush()
