"""A request to the company, its answer, and how often one may ask."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from podlab.sandbox.records import Problem, invalid

SIMULATED = "X-Podlab-Simulated"
"""A header of every answer: what it says is pretended."""
PROBLEM = "application/problem+json"
Delivery = Literal["whole", "reset", "silence", "cut", "drip"]
"""How an answer reaches who asked: whole; the connection reset, or kept open without a byte; half of the body and then
the end; a byte now and then."""


@dataclass(frozen=True)
class Request:
    """What somebody asks. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """Its body, or None where that is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True)
class Answer:
    """What comes back: a body, or with `events` a stream of pieces of text that lasts."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    events: Iterator[bytes] | None = None
    delivery: Delivery = "whole"

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


def document(status: int, value: Any) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def problem(error: Problem) -> Answer:
    """An answer that says what is wrong (RFC 9457)."""
    said: dict[str, Any] = {"title": error.title, "status": error.status, "detail": error.detail}
    if error.errors:
        said["errors"] = list(error.errors)
    headers = {"Content-Type": PROBLEM}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return Answer(error.status, json.dumps(said).encode(), headers)


class Quota:
    """How many requests there may be in a minute, an hour, a day; what the RateLimit headers say of it.

    Each window begins anew when it is over, for all requests in it together.
    """

    def __init__(self, now: Callable[[], float], per_minute: int) -> None:
        self._now = now
        self.windows = (("minute", 60, per_minute), ("hour", 3600, per_minute * 50), ("day", 86400, per_minute * 900))
        self._asked = {name: (0, 0) for name, _, _ in self.windows}
        """By window: which one it is, and how many requests came in it."""
        self._lock = threading.Lock()

    def ask(self) -> None:
        """Count a request. Raises Problem 429 saying when to come again."""
        now = self._now()
        with self._lock:
            counts = {name: self._count(name, length_s, now) for name, length_s, _ in self.windows}
            for name, length_s, most in self.windows:
                if counts[name] >= most:
                    wait_s = int(length_s - now % length_s) + 1
                    raise Problem(429, f"rate limit exceeded for the {name} window", retry_after_s=wait_s)
            for name, length_s, _ in self.windows:
                self._asked[name] = (int(now // length_s), counts[name] + 1)

    def headers(self) -> dict[str, str]:
        """What is left, and what is granted."""
        now = self._now()
        with self._lock:
            left = ", ".join(
                f'"{name}";r={max(0, most - self._count(name, length_s, now))};t={int(length_s - now % length_s) + 1}'
                for name, length_s, most in self.windows
            )
        granted = ", ".join(f'"{name}";q={most};w={length_s}' for name, length_s, most in self.windows)
        return {"RateLimit": left, "RateLimit-Policy": granted}

    def _count(self, name: str, length_s: int, now: float) -> int:
        window, count = self._asked[name]
        return count if window == int(now // length_s) else 0


def words(query: Mapping[str, str], name: str) -> tuple[str, ...]:
    """A query parameter as the words between its commas."""
    return tuple(word for word in query.get(name, "").split(",") if word)


def whole_number(query: Mapping[str, str], name: str, otherwise: int, lowest: int, highest: int) -> int:
    """A query parameter as a whole number. Raises Problem 422."""
    text = query.get(name, str(otherwise))
    if not re.match(r"\d{1,9}\Z", text) or not lowest <= int(text) <= highest:
        raise invalid(f"{name}: must be from {lowest} to {highest}")
    return int(text)
