"""Output of something that runs on a pod, passed on to this process's stdout and stderr line by line."""

from __future__ import annotations

import sys
from typing import Literal

from podlab.display import sanitize

_LONGEST_LINE = 16_384
"""Characters that wait for the end of their line. A program that never ends one is passed on in such pieces."""


class Streams:
    """Keeps the lines of both streams whole, takes out what could steer a terminal, and remembers the last line.

    `mute` writes nothing.
    """

    def __init__(self, *, mute: bool = False) -> None:
        self._mute = mute
        self._open = {"stdout": "", "stderr": ""}
        self.last_line = ""
        """The last line that was not blank, standard error preferred to standard output of the same piece."""
        self.used = False

    def write(self, text: str, stream: Literal["stdout", "stderr"]) -> None:
        """Pass on what is complete of `text`. A carriage return ends a line too: progress bars keep moving."""
        self.used = True
        waiting = self._open[stream] + text
        end = max(waiting.rfind("\n"), waiting.rfind("\r")) + 1
        if len(waiting) - end > _LONGEST_LINE:
            end = len(waiting)
        self._open[stream] = waiting[end:]
        self._pass_on(waiting[:end], stream)

    def flush(self) -> None:
        """Pass on lines that have no end."""
        for stream in self._open:
            self._pass_on(self._open[stream], stream)
            self._open[stream] = ""

    def _pass_on(self, text: str, stream: str) -> None:
        if not text:
            return
        clean = sanitize.stream(text)
        if lines := [line for line in clean.splitlines() if line.strip()]:
            self.last_line = lines[-1].strip()
        if self._mute:
            return
        target = sys.stderr if stream == "stderr" else sys.stdout
        target.write(clean)
        target.flush()
