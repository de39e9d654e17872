"""What goes wrong, on order: faults that stand before the company's door and change how it treats a request.

A fault matches requests by method and path, lets some pass, then strikes a number of times. Several that match one
request stand behind each other, the first set outermost. The named ones are in fault_names.py.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from podlab.sandbox.asking import Answer, Delivery, Request, problem
from podlab.sandbox.company import Company
from podlab.sandbox.records import Problem

Go = Callable[[], Answer]
"""Does what was asked."""
Effect = Callable[[Company, Request, Go], Answer]

POD_PATH = r"/v2/pods/(?P<id>[^/]+)"
PAGE = b"<!DOCTYPE html><html><title>502: Bad gateway</title></html>"
HTML = Answer(502, PAGE, {"Content-Type": "text/html; charset=UTF-8"})
"""What a gateway says when the company behind it does not answer."""


@dataclass
class Fault:
    """One fault. `times` None: until it is cleared. `after`: so many matching requests pass first."""

    effect: Effect
    name: str = "fault"
    method: str | None = None
    path: str = r".*"
    times: int | None = 1
    after: int = 0
    struck: int = 0
    passed: int = 0

    def takes(self, request: Request) -> bool:
        """Whether it strikes this request; counts it."""
        if self.method not in (None, request.method) or not re.fullmatch(self.path, request.path):
            return False
        if self.passed < self.after:
            self.passed += 1
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True


@dataclass
class Faults:
    """All that are set. Safe from several threads."""

    set_: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *faults: Fault) -> None:
        """Set faults, behind those that are set."""
        with self._lock:
            self.set_.extend(faults)

    def clear(self) -> None:
        """From now on everything goes right."""
        with self._lock:
            self.set_.clear()

    def listed(self) -> tuple[Fault, ...]:
        """Those that are set, spent ones included."""
        with self._lock:
            return tuple(self.set_)

    def answer(self, company: Company, request: Request, go: Go) -> Answer:
        """The answer to a request, with what goes wrong."""
        with self._lock:
            faults = list(self.set_)
        return self._through(faults, company, request, go)

    def _through(self, faults: list[Fault], company: Company, request: Request, go: Go) -> Answer:
        while faults:
            fault, *faults = faults
            with self._lock:
                takes = fault.takes(request)
            if takes:
                return fault.effect(company, request, partial(self._through, faults, company, request, go))
        return go()


# What a fault does


def instead(answer: Answer) -> Effect:
    """Nothing is done; this is answered."""
    return lambda _company, _request, _go: answer


def refused(status: int, detail: str, *, errors: tuple[str, ...] = (), retry_after_s: int | None = None) -> Effect:
    """Nothing is done; the company says why."""
    return instead(problem(Problem(status, detail, errors=errors, retry_after_s=retry_after_s)))


def done_then(answer: Answer) -> Effect:
    """What was asked is done, and this is answered. What the company refuses by itself stays refused."""

    def effect(_company: Company, _request: Request, go: Go) -> Answer:
        said = go()
        return answer if said.status < 400 else said

    return effect


def delivered(how: Delivery, *, only_done: bool = False) -> Effect:
    """It is done, and the answer gets lost or comes in pieces."""

    def effect(_company: Company, _request: Request, go: Go) -> Answer:
        said = go()
        return replace(said, delivery=how) if said.status < 400 or not only_done else said

    return effect


def with_body(change: Callable[[bytes], bytes]) -> Effect:
    """It is done, and the body is another one."""

    def effect(_company: Company, _request: Request, go: Go) -> Answer:
        said = go()
        return replace(said, body=change(said.body)) if said.events is None else said

    return effect


def with_pods(change: Callable[[dict[str, Any]], None]) -> Effect:
    """It is done, and each pod in the answer is described otherwise than it is."""

    def effect(_company: Company, _request: Request, go: Go) -> Answer:
        said = go()
        if said.status >= 400 or not said.body:
            return said
        found = json.loads(said.body)
        for pod in found.get("pods", [found] if "status" in found else []):
            change(pod)
        return replace(said, body=json.dumps(found).encode())

    return effect


def cut_stream(lines: int) -> Effect:
    """A log stream ends, in the middle of things, after so many lines."""

    def effect(_company: Company, _request: Request, go: Go) -> Answer:
        said = go()
        if said.events is None:
            return said

        def some(events: Iterator[bytes]) -> Iterator[bytes]:
            seen = 0
            for piece in events:
                if seen == lines:
                    yield piece[: len(piece) // 2]
                    return
                yield piece
                seen += piece.startswith(b"id:")

        return replace(said, events=some(said.events), delivery="cut")

    return effect


def paged(size: int) -> Effect:
    """A list comes in pages, with a cursor to the next."""

    def effect(_company: Company, request: Request, go: Go) -> Answer:
        said = go()
        found = json.loads(said.body) if said.status == 200 else {}
        begin = int(request.query.get("cursor") or 0)
        for name, rows in found.items():
            if isinstance(rows, list):
                more = len(rows) > begin + size
                page = {"hasNextPage": more, "nextCursor": str(begin + size) if more else None}
                body = json.dumps({name: rows[begin : begin + size], "pagination": page}).encode()
                return replace(said, body=body)
        return said

    return effect


def asked_pod(request: Request) -> str:
    """The id of the pod that a request is about."""
    found = re.match(POD_PATH, request.path)
    return found["id"] if found else ""
