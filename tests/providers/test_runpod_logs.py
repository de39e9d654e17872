"""A log is read without a gap and without a repetition from a stream that is cut wherever a stream can be cut."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from podlab.errors import KeyRefused, NotFound, PodlabError, ProviderUnavailable, RateLimited
from podlab.http import Http
from podlab.providers import runpod_logs
from podlab.providers.runpod_line import Line
from podlab.renting import RentalLine
from tests.scripted import SSE, Script, Server, answer, saying, serving

Stamped = list[tuple[str, str]]
"""Event ids and texts, as the server has them."""
COARSE: Stamped = [(f"2026-06-01T12:02:{number // 3:02d}Z", f"line {number}") for number in range(30)]
"""Three lines a second, with the second as their id."""
FINE: Stamped = [(f"2026-06-01T12:02:03.{number:09d}Z", f"line {number}") for number in range(30)]
COUNTED: Stamped = [(f"2026-06-01T12:02:03Z/{number:012d}", f"line {number}") for number in range(30)]


def event(identity: str, text: str, source: str = "container") -> bytes:
    said = json.dumps({"ts": identity.partition("/")[0], "source": source, "line": text})
    return f"id: {identity}\ndata: {said}\n\n".encode()


def asked_id(request: bytes) -> str | None:
    found = re.search(rb"\r\nlast-event-id: ([^\r]+)", request, re.IGNORECASE)
    return found[1].decode() if found else None


def cut(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def log_of(lines: Stamped, *, inclusive: bool, rng: random.Random | None = None) -> Script:
    """A server of these lines. With `rng` each stream breaks somewhere, often in the middle of an event."""

    def serve(connection: socket.socket, request: bytes) -> None:
        last, tail = asked_id(request), int(re.findall(rb"tail=(\d+)", request)[0])
        if last is None:
            due = lines[-tail:] if tail else []
        else:
            due = [line for line in lines if line[0] > last or (inclusive and line[0] == last)]
        data = b"".join(event(*line) for line in due)
        if rng is not None and data:
            data = data[: rng.randrange(1, len(data) + 1)]
        connection.sendall(SSE + b": hello\n\n" + data)
        if rng is None:
            connection.settimeout(30)
            while connection.recv(1):
                pass

    return serve


def line_to(server: Server, *, deadline_s: float = 10.0) -> Line:
    return Line(Http(server.url.removesuffix("/v1")), provider="runpod", label="RunPod", deadline_s=deadline_s)


def lines_of(server: Server, *, waits: list[float] | None = None, **given: Any) -> Iterator[RentalLine]:
    asked: dict[str, Any] = {"source": None, "tail": 100, "after": None, "follow": False} | given
    waited = [] if waits is None else waits
    return runpod_logs.lines(line_to(server), "abc", pause=waited.append, **asked)


def texts(found: Iterator[RentalLine]) -> list[str]:
    return [line.text for line in found]


ALL = [f"line {number}" for number in range(30)]
logs = pytest.mark.parametrize("stamped", [FINE, COUNTED, COARSE], ids=["fine", "counted", "whole seconds"])
resuming = pytest.mark.parametrize("inclusive", [True, False], ids=["the last one again", "only what is behind"])


@logs
@resuming
@pytest.mark.parametrize("seed", range(5))
def test_a_stream_that_keeps_breaking_loses_and_repeats_nothing(stamped: Stamped, inclusive: bool, seed: int) -> None:
    with serving(log_of(stamped, inclusive=inclusive, rng=random.Random(seed))) as server:
        waits: list[float] = []
        found = list(islice(lines_of(server, follow=True, waits=waits), 30))

    assert [line.text for line in found] == ALL
    assert len({line.id for line in found}) == 30
    assert len(waits) == len(server.requests) - 1 and all(wait <= 20 for wait in waits)


@logs
@resuming
def test_every_line_leads_back_to_where_it_was(stamped: Stamped, inclusive: bool) -> None:
    with serving(log_of(stamped, inclusive=inclusive)) as server:
        whole = list(islice(lines_of(server, follow=True), 30))
        for place in (0, 1, 2, 3, 14, 28):
            again = list(islice(lines_of(server, follow=True, after=whole[place].id), 29 - place))
            assert again == whole[place + 1 :]


def test_what_was_there_ends_when_nothing_more_comes() -> None:
    with serving(log_of(FINE, inclusive=False)) as server:
        assert texts(lines_of(server)) == ALL
        assert texts(lines_of(server, tail=4)) == ALL[-4:]
        assert texts(lines_of(server, tail=0)) == []
        assert texts(lines_of(server, after=FINE[27][0])) == ALL[28:]
    assert b"tail=4" in server.requests[1] and b"GET /v2/pods/abc/logs" in server.requests[1]


def test_a_pod_that_never_stops_talking_is_listened_to_until_the_deadline() -> None:
    def chatter(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE)
        for number in range(100_000):
            connection.sendall(event(f"2026-06-01T12:02:03.{number:09d}Z", "again"))
            time.sleep(0.02)

    with serving(chatter) as server:
        line = line_to(server, deadline_s=0.5)
        began = time.monotonic()
        found = list(
            runpod_logs.lines(line, "abc", source=None, tail=5000, after=FINE[0][0], follow=False, pause=time.sleep)
        )
        assert found and time.monotonic() - began < 10


def test_a_piece_of_an_event_now_and_then_does_not_outlive_the_deadline() -> None:
    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE + b"data: ")
        for _ in range(5000):
            connection.sendall(b"x")
            time.sleep(0.02)

    with serving(drip) as server:
        line = line_to(server, deadline_s=0.5)
        began = time.monotonic()
        assert list(runpod_logs.lines(line, "abc", source=None, tail=9, after=None, follow=False)) == []
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("fault", ["502 Bad Gateway", "200 OK"])
def test_a_stream_that_is_followed_waits_through_what_stands_in_between(fault: str) -> None:
    """A page instead of the stream, again and again, and then the stream."""
    answers = iter([answer(b"<html>busy</html>", fault)] * 7)
    good = log_of(FINE, inclusive=False)

    def serve(connection: socket.socket, request: bytes) -> None:
        if (data := next(answers, None)) is not None:
            connection.sendall(data)
        else:
            good(connection, request)

    with serving(serve) as server:
        waits: list[float] = []
        assert texts(islice(lines_of(server, follow=True, waits=waits), 30)) == ALL
    assert waits == [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 20.0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("404 Not Found", NotFound), ("401 Unauthorized", KeyRefused), ("503 No", ProviderUnavailable),
        ("429 No", RateLimited),
    ],
)  # fmt: skip
def test_what_is_refused_is_an_error(status: str, kind: type[PodlabError]) -> None:
    body = json.dumps({"title": "no", "status": int(status[:3]), "detail": "pod not found"}).encode()
    with serving(saying(answer(body, status, "Retry-After: 7\r\n"))) as server:
        with pytest.raises(kind) as refused:
            list(lines_of(server))
        if kind in (NotFound, KeyRefused):
            with pytest.raises(kind):
                next(lines_of(server, follow=True))
    assert "log of pod abc" in str(refused.value)


def test_a_limit_is_waited_for_as_long_as_it_says() -> None:
    answers = iter([answer(b'{"title": "Too Many Requests"}', "429 No", "Retry-After: 7\r\n")])
    good = log_of(FINE, inclusive=False)

    def serve(connection: socket.socket, request: bytes) -> None:
        data = next(answers, None)
        good(connection, request) if data is None else connection.sendall(data)

    with serving(serve) as server:
        waits: list[float] = []
        assert texts(islice(lines_of(server, follow=True, waits=waits), 30)) == ALL
    assert waits == [7.0]


def test_events_that_hold_no_line_are_passed_over() -> None:
    odd = [
        b"id: a\ndata: no json\n\n", b"id: b\ndata: []\n\n", b'id: c\ndata: {"line": 7}\n\n', b": a comment\n\n",
        b"event: ping\ndata: {}\n\n", b'data: {"line": "without an id", "source": "mars"}\n\n',
        b'id: d\ndata: {"line": "half \\ud800 a letter", "source": "system", "ts": "2026-06-01T12:02:03Z"}\n\n',
    ]  # fmt: skip
    with serving(saying(SSE + b"".join(odd))) as server:
        found = list(lines_of(server))

    assert [(line.text, line.source) for line in found] == [
        ("without an id", "container"),
        ("half ? a letter", "system"),
    ]
    assert found[0].at is None and found[1].at == 1780315323.0


@pytest.mark.parametrize("token", ["", "\r\nX: y", "a b", "x" * 200, "é", "2026#x"])
def test_an_id_that_is_none_leads_to_the_beginning(token: str) -> None:
    """Lines come twice rather than never, and nothing but an id reaches a header."""
    with serving(log_of(FINE, inclusive=False)) as server:
        assert texts(lines_of(server, after=token)) == ALL
    assert asked_id(server.requests[0]) is None


def test_a_log_whose_first_line_comes_late_is_waited_for_and_not_for_its_end() -> None:
    """The answer's head comes from the interface at once, and the lines from the pod's own machine."""

    def serve(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE + b": hello\n\n")
        time.sleep(2.5 * runpod_logs.QUIET_S)
        connection.sendall(b"".join(event(*line) for line in FINE))
        connection.settimeout(30)
        while connection.recv(1):
            pass

    with serving(serve) as server:
        begun_at = time.monotonic()
        assert texts(lines_of(server)) == [text for _, text in FINE]
        assert time.monotonic() - begun_at < 20, "the stream is never ended by the server"
