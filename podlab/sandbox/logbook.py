"""The log of a pod at the company: lines with unique, rising times, which are also what a stream resumes behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

KEPT_LINES = 20_000
LONGEST_LINE = 16_384
Source = Literal["container", "system"]


@dataclass(frozen=True)
class LogLine:
    """A line; `at` is in nanoseconds since the epoch, and no other line of the pod has the same."""

    at: int
    source: Source
    text: str

    @property
    def id(self) -> str:
        """Its time as the API writes it, with all its digits."""
        return stamp(self.at)


def stamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def moment(text: str) -> int:
    """Nanoseconds of an RFC 3339 time. Raises ValueError."""
    body, point, rest = text.partition(".")
    digits = ""
    if point:
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        body += rest[len(digits) :]
    parsed = datetime.fromisoformat(body)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return int(parsed.timestamp()) * 10**9 + int((digits + "0" * 9)[:9])


class LogBook:
    """The lines of one pod, safe from several threads."""

    def __init__(self) -> None:
        self._lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self._changed = threading.Condition()
        self._closed = False

    def write(self, at_s: float, source: Source, text: str) -> None:
        """Add a line; its time is moved just behind the last one's where it would not be later."""
        with self._changed:
            last = self._lines[-1].at if self._lines else 0
            self._lines.append(LogLine(max(int(at_s * 10**9), last + 1), source, text[:LONGEST_LINE]))
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will be written: streams end behind the last line."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def read(self, *, source: Source | None, after: int | None, tail: int) -> tuple[LogLine, ...]:
        """The lines behind `after`, or the last `tail` ones where there is none."""
        with self._changed:
            lines = [line for line in self._lines if source in (None, line.source)]
        if after is not None:
            return tuple(line for line in lines if line.at > after)
        return tuple(lines[-tail:]) if tail else ()

    def follow(self, *, source: Source | None, after: int | None, tail: int, beat_s: float) -> Iterator[LogLine | None]:
        """The same and whatever comes later; None when nothing came for `beat_s`."""
        sent = self._lines[-1].at if self._lines and after is None else after or 0
        for line in self.read(source=source, after=after, tail=tail):
            sent = max(sent, line.at)
            yield line
        while True:
            with self._changed:
                if not self._newer(sent) and not self._closed:
                    self._changed.wait(beat_s)
                fresh = self._newer(sent)
                if not fresh and self._closed:
                    return
            if not fresh:
                yield None
            for line in fresh:
                sent = line.at
                if source in (None, line.source):
                    yield line

    def _newer(self, sent: int) -> list[LogLine]:
        if not self._lines or self._lines[-1].at <= sent:
            return []
        return [line for line in self._lines if line.at > sent]
