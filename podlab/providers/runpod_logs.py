"""A pod's log as RunPod streams it, without a gap and without a repetition, whatever happens to the stream.

Its events carry their time as their id, and a stream is resumed behind the one that `Last-Event-ID` names. Whether
that one comes again is said nowhere, and whole seconds would be shared by several lines; so lines are counted within
an id, a resumption by whole seconds begins one second earlier, and what was seen already is dropped.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

from podlab.errors import HttpError, PodlabError, ProviderUnavailable, RateLimited
from podlab.http import Answer, Event
from podlab.providers.runpod_line import Line
from podlab.providers.runpod_wire import is_utf8, moment, stamp
from podlab.renting import RentalLine

MOST_TAIL = 5000
"""The API gives no more lines of what was before."""
QUIET_S = 1.0
"""The API never ends a stream, so this much silence is the end of what there was."""
BEGIN_S = 5.0
"""So long the first line of a log may take: it comes from the pod's machine, and the answer's head does not."""
SILENCE_S = 60.0
"""Without a sign of life for so long, the stream is taken for dead; the API sends comments in between."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_COARSE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_TOKEN = re.compile(r"([A-Za-z0-9:./+_-]{1,120})(?:#(\d{1,6}))?")


@dataclass
class _Place:
    """Where in a log we are: behind the `count`-th line of those with this id."""

    id: str = ""
    count: int = 0

    @property
    def coarse(self) -> bool:
        """Whether other lines may have the same id."""
        return bool(_COARSE.fullmatch(self.id))

    @property
    def header(self) -> str | None:
        """What `Last-Event-ID` has to name to be given all that may be missing."""
        at = moment(self.id) if self.coarse else None
        return (self.id or None) if at is None else stamp(at - 1)

    def pass_by(self, event: Event) -> str:
        """Move behind an event; the id that leads back here."""
        self.count = self.count + 1 if event.id == self.id else 1
        self.id = event.id
        return f"{self.id}#{self.count}" if self.coarse or self.count > 1 else self.id


def place(after: str | None) -> _Place:
    """Where a line's id leads. An id that is none of ours leads to the beginning: lines repeat rather than miss."""
    match = _TOKEN.fullmatch(after or "")
    return _Place() if match is None else _Place(match[1], int(match[2] or 1))


def lines(
    line: Line, rental_id: str, *, source: Literal["container", "system"] | None, tail: int, after: str | None,
    since: float | None = None, follow: bool, pause: Callable[[float], None] = time.sleep,
) -> Iterator[RentalLine]:  # fmt: skip
    """The lines, as `Provider.logs` promises them."""
    here, failures = place(after), 0
    if not here.id and since is not None:
        here = _Place(stamp(since))
    tail = min(max(tail, 0), MOST_TAIL)
    left = MOST_TAIL if here.id else tail
    ends = time.monotonic() + line.deadline_s
    while follow or left:
        wait_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
        try:
            for found in _stream(
                line, rental_id, here, source, tail, whole_s=None if follow else ends - time.monotonic()
            ):
                failures = 0
                yield found
                left -= 1
                if not follow and left <= 0:
                    return
            if not follow:
                return
        except HttpError as error:
            failure = _failure(line, error, rental_id)
            passing = isinstance(failure, (ProviderUnavailable, RateLimited))
            if not (passing and (follow or (failures == 0 and error.status == 0 and time.monotonic() < ends))):
                raise failure from error
            if isinstance(failure, RateLimited):
                wait_s = failure.retry_after_s
        pause(wait_s)
        failures += 1


def _stream(
    line: Line, rental_id: str, here: _Place, source: str | None, tail: int, *, whole_s: float | None
) -> Iterator[RentalLine]:
    """One connection's lines, those before `here` left out; `here` goes along. Without `whole_s` it follows."""
    query = {"tail": str(tail)} | ({} if source is None else {"source": source})
    first_s = line.deadline_s if whole_s is None else max(0.001, whole_s)
    begun = _Place(here.id, here.count)
    dropped = 0
    for event in line.http.listen(
        f"/v2/pods/{rental_id}/logs?{urlencode(query)}", last_id=begun.header, first_s=first_s,
        silence_s=SILENCE_S if whole_s is None else QUIET_S, whole_s=whole_s,
        begin_s=None if whole_s is None else QUIET_S if begun.id and begun.count else BEGIN_S,
    ):  # fmt: skip
        if event.id and event.id == begun.id and dropped < begun.count:
            dropped += 1
            continue
        if begun.coarse and (moment(event.id) or 0.0) < (moment(begun.id) or 0.0):
            continue
        token = here.pass_by(event)
        if (found := _line(event, token)) is not None:
            yield found


def _line(event: Event, token: str) -> RentalLine | None:
    """The line in an event; None for an event that holds none."""
    try:
        data = json.loads(event.data)
    except (ValueError, RecursionError):
        return None
    text = data.get("line") if isinstance(data, dict) else None
    if not isinstance(text, str):
        return None
    source: Literal["container", "system"] = "system" if data.get("source") == "system" else "container"
    text = text if is_utf8(text) else text.encode(errors="replace").decode()
    return RentalLine(token, moment(data.get("ts")) or moment(event.id), source, text)


def _failure(line: Line, error: HttpError, rental_id: str) -> PodlabError:
    doing = f"show the log of pod {rental_id}"
    if error.status == 0 or 200 <= error.status < 300:
        return line.lost(error, doing)
    return line.refused(Answer(error.status, {"retry-after": error.retry_after}, error.body.encode()), doing=doing)
