"""One account's line to RunPod's API: every request of podlab's goes over it, and no answer leaves it unread.

A whole deadline for each call, capped bodies, no redirect followed, nothing that changes anything sent twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from podlab.errors import HttpError, OutcomeUnknown, PodlabError, ProviderError, ProviderUnavailable
from podlab.http import Answer, Http
from podlab.providers.base import DEADLINE_S
from podlab.providers.runpod_errors import HINTS, hint_for, problem_in, refusal

BODY_LIMIT_BYTES = 8 * 2**20
"""Room for hundreds of pods in a listing, which repeats each one's start command; JSON that is made for it takes up to
thirty times as much memory when it is read."""
MOST_PAGES = 200


@dataclass(frozen=True)
class Line:
    """Safe with several threads. `label` names the company in sentences."""

    http: Http
    provider: str
    label: str
    deadline_s: float = DEADLINE_S
    ends: float | None = None
    """When all of it has to be over (monotonic), for several requests that are one call; each has its own otherwise."""

    def within(self, began: float | None = None) -> Line:
        """The line for the requests of one call that began then, or begins now."""
        return replace(self, ends=(time.monotonic() if began is None else began) + self.deadline_s)

    def read(self, path: str, *, doing: str) -> Answer:
        """GET, asked once more where the connection failed; the answer is a success. Raises the error of the answer,
        ProviderUnavailable where there is none."""
        return self._read(path, doing, self._deadline())

    def document(self, path: str, *, doing: str) -> dict[str, Any]:
        """GET an object. Raises ProviderUnavailable for what is none, too."""
        return self.object_in(self.read(path, doing=doing), doing=doing)

    def pages(self, path: str, key: str, *, doing: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """GET a list, all pages of it, before the one deadline. Whole or not at all: raises ProviderUnavailable
        where a page is missing or holds something that is no object."""
        deadline = self._deadline()
        found: list[dict[str, Any]] = []
        given = dict(query or {})
        seen: set[str] = set()
        while len(seen) < MOST_PAGES:
            document = self.object_in(self._read(_with(path, given), doing, deadline), doing=doing)
            page = document.get(key)
            if not isinstance(page, list) or not all(isinstance(each, dict) for each in page):
                raise self.unusable(doing, f"there is no list of {key} in it")
            found += page
            pagination = document.get("pagination")
            if not isinstance(pagination, dict) or not pagination.get("hasNextPage"):
                return found
            cursor = pagination.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                raise self.unusable(doing, "its pages do not end")
            seen.add(cursor)
            given["cursor"] = cursor
        raise self.unusable(doing, f"it has more than {MOST_PAGES} pages")

    def write(self, method: str, path: str, *, doing: str, body: object = None) -> Answer:
        """Send a change, once; the answer is a success. Raises the error of the answer, OutcomeUnknown where there
        is none, ProviderUnavailable where the request certainly was not received."""
        answer = self.sent(method, path, doing=doing, body=body)
        if not 200 <= answer.status < 300:
            raise self.refused(answer, doing=doing, write=True)
        if answer.content:  # a page of something in between is no success, whatever its status
            self.object_in(answer, doing=doing, write=True)
        return answer

    def sent(self, method: str, path: str, *, doing: str, body: object = None, changes: bool = True) -> Answer:
        """Send something, once; the answer whatever it is. `changes`: it may have been carried out."""
        content = None if body is None else json.dumps(body).encode()
        try:
            return self.http.ask(
                method, path, content=content, deadline_s=_left_s(self._deadline()), limit_bytes=BODY_LIMIT_BYTES
            )
        except HttpError as error:
            raise self.lost(error, doing, write=changes and error.sent) from error

    def object_in(self, answer: Answer, *, doing: str, write: bool = False) -> dict[str, Any]:
        """The JSON object in an answer."""
        try:
            document = json.loads(answer.content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            shown = problem_in(answer.content).detail[:80] or "an empty body"
            raise self.unusable(doing, f"it is no JSON object but {shown!r}", write=write, status=answer.status)
        return document

    def refused(self, answer: Answer, *, doing: str, write: bool = False) -> PodlabError:
        """The error that an answer without success is."""
        return refusal(answer, label=self.label, provider=self.provider, doing=doing, write=write)

    def unusable(self, doing: str, why: str, *, write: bool = False, status: int = 200) -> ProviderError:
        """The error that a success is whose body cannot be used."""
        kind = OutcomeUnknown if write else ProviderUnavailable
        message = f"{self.label} answered {status} when asked to {doing}, but {why}."
        return kind(message, provider=self.provider, status=status, hint=HINTS[kind])

    def _read(self, path: str, doing: str, deadline: float) -> Answer:
        def once() -> Answer:
            return self.http.ask("GET", path, deadline_s=_left_s(deadline), limit_bytes=BODY_LIMIT_BYTES)

        try:
            try:
                answer = once()
            except HttpError as error:
                if error.status != 0 or time.monotonic() >= deadline:
                    raise
                answer = once()
        except HttpError as error:
            raise self.lost(error, doing) from error
        if not 200 <= answer.status < 300:
            raise self.refused(answer, doing=doing)
        return answer

    def _deadline(self) -> float:
        return time.monotonic() + self.deadline_s if self.ends is None else self.ends

    def lost(self, error: HttpError, doing: str, *, write: bool = False) -> ProviderError:
        """The error where no whole answer came."""
        kind = OutcomeUnknown if write else ProviderUnavailable
        message = f"{self.label} gave no answer when asked to {doing}: {error.message}"
        return kind(message, provider=self.provider, status=error.status, hint=hint_for(kind, self.provider))


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _with(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
