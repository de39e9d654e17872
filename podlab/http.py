"""The one HTTP client: deadlines over the whole call, capped bodies, server-sent events, our own errors.

Addresses on this computer never go through a proxy, whatever the environment says: an endpoint's key must not leave.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import os
import re
import socket
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from podlab.errors import BadArgument, BadSecret, HttpError
from podlab.secrets import Secret, redact, remember

if TYPE_CHECKING:
    import httpx2

BODY_LIMIT_BYTES = 16 * 2**20
EVENT_LIMIT_BYTES = 1 * 2**20
LISTEN_LIMIT_BYTES = 64 * 2**10
"""Of what a server says instead of a stream of events."""
CONNECT_S = 10.0
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
NETWORK = (*_PROXIES, *(name.lower() for name in _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What of the environment decides how a server is reached, as a client finds it when it is made."""


def network() -> tuple[str, ...]:
    """How servers are reached from here, as the environment has it now; "" for what it lacks. It may hold passwords."""
    return tuple(os.environ.get(name, "") for name in NETWORK)


def keep_quiet_about_proxies() -> None:
    """Have the passwords of the proxies taken out of every text that is logged or shown."""
    for address in network():
        login, _, _ = address.rpartition("@")
        login = login.partition("://")[2] or login
        for value in (login, login.partition(":")[2]):
            remember(value)
            remember(unquote(value))


@dataclass(frozen=True)
class Answer:
    """An answer as it came, whatever its status. Names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Event:
    """A server-sent event. `id` is what a later request names as the last one it got."""

    id: str
    data: str


class Http:
    """Calls one server. `base_url` has no trailing slash; `key` goes as a bearer token. Safe with several threads."""

    def __init__(
        self, base_url: str, *, key: Secret | None = None, connections: int = 100, user_agent: str | None = None
    ) -> None:
        """`connections` is how many requests may be under way at once; more of them wait for each other."""
        host = _host(base_url)
        if key is not None and not key.reveal().isascii():
            raise BadSecret("A key for a server holds a character that is not ASCII.", hint="Set it again.")
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._named = {} if user_agent is None else {"User-Agent": user_agent}
        import httpx2

        keep_quiet_about_proxies()
        self._client = httpx2.Client(
            trust_env=not _is_loopback(host), follow_redirects=False, verify=not base_url.lower().startswith("http:"),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )  # fmt: skip

    def get_json(self, path: str, *, deadline_s: float = 10.0) -> Any:
        """GET a JSON document; repeated once when the connection failed (GET changes nothing). Raises HttpError.

        `deadline_s` holds for both together.
        """
        deadline = time.monotonic() + deadline_s
        try:
            return self._document("GET", path, None, deadline)
        except HttpError as error:
            if error.status != 0 or time.monotonic() >= deadline:
                raise
            return self._document("GET", path, None, deadline)

    def get_bytes(self, path: str, *, span: tuple[int, int] | None = None, deadline_s: float = 10.0) -> Answer:
        """GET whatever is there, redirects and refusals as they are. Raises HttpError when there is no answer.

        `span` asks for these bytes, the first and the last; of a server that sends all the same, no more than these
        are read, and they are the file's first ones.
        """
        limit = None if span is None else span[1] - span[0] + 1
        headers = {"Accept-Encoding": "identity"} | ({} if span is None else {"Range": f"bytes={span[0]}-{span[1]}"})
        deadline = time.monotonic() + deadline_s
        answer, data = self._answer("GET", path, None, deadline, headers, limit, cut=span is not None)
        return _whole(answer, data)

    def ask(
        self, method: str, path: str, *, content: bytes | None = None, deadline_s: float = 10.0,
        limit_bytes: int | None = None,
    ) -> Answer:  # fmt: skip
        """One request of any method, sent once, `content` being JSON; the answer as it is, a redirect too.

        Raises HttpError when no whole answer came: `sent` says whether the server may have begun to work on it.
        """
        answer, data = self._answer(
            method, path, content, time.monotonic() + deadline_s, {"Accept-Encoding": "identity"}, limit_bytes
        )
        return _whole(answer, data)

    def post_json(self, path: str, body: Any, *, deadline_s: float = 60.0) -> Any:
        """POST a JSON document and read one back. Never repeated. Raises HttpError."""
        return self._document("POST", path, json.dumps(body).encode(), time.monotonic() + deadline_s)

    def events(self, path: str, body: Any, *, silence_s: float = 120.0) -> Generator[str, None, None]:
        """POST, then the `data` of each server-sent event as it arrives.

        `silence_s` is the longest wait for the next piece. Closing the iterator closes the connection, which tells
        the server to stop. Raises HttpError when the answer is no success, or the stream breaks.
        """
        import httpx2

        timeout = httpx2.Timeout(silence_s, connect=CONNECT_S)
        try:
            content = json.dumps(body).encode()
            # A connection of its own: a kept one may be closed by the server at the moment it is used again, and a
            # POST that then got no answer must not be repeated, for the server may be at work on it.
            headers = self._headers(content) | {"Connection": "close"}
            with self._client.stream(
                "POST", self.base_url + path, content=content, headers=headers, timeout=timeout
            ) as answer:
                if not answer.is_success:
                    with _Clock(time.monotonic() + CONNECT_S, answer.extensions["network_stream"]) as clock:
                        data = _capped(answer, clock)
                    raise self._refusal(answer, data)
                answer.encoding = "utf-8"  # server-sent events are, whatever the header says
                for event in httpx2.EventSource(answer, max_event_size=EVENT_LIMIT_BYTES):
                    yield event.data
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    def listen(
        self, path: str, *, last_id: str | None = None, first_s: float = 30.0, silence_s: float = 120.0,
        begin_s: float | None = None, whole_s: float | None = None,
    ) -> Generator[Event, None, None]:  # fmt: skip
        """GET, then each server-sent event as it arrives; `last_id` asks for those behind that one.

        `first_s` is the longest wait for the head of the answer. It ends when the server ends it, says nothing for
        `silence_s`, or `whole_s` are over; with `begin_s` the first event may take that long, and only events count
        as something said. Closing the iterator closes the connection. Raises HttpError when the
        answer is no success, is no such stream, or the stream breaks.
        """
        import httpx2

        ends = math.inf if whole_s is None else time.monotonic() + whole_s
        more = {} if last_id is None else {"Last-Event-ID": last_id}
        headers = self._headers(None) | {"Accept": "text/event-stream", "Connection": "close"} | more
        with _Clock(time.monotonic() + first_s) as clock:
            try:
                request = self._client.build_request(
                    "GET", self.base_url + path, headers=headers, extensions={"trace": clock.watch},
                    timeout=httpx2.Timeout(first_s, connect=min(CONNECT_S, first_s / 2)),
                )  # fmt: skip
                answer = self._client.send(request, stream=True)
            except httpx2.HTTPError as error:
                failure = self._failure(error)
                raise (_too_slow(self.base_url + path, sent=failure.sent) if clock.ran_out else failure) from error
        with contextlib.closing(answer):
            if not answer.is_success:
                with _Clock(time.monotonic() + first_s, answer.extensions["network_stream"]) as clock:
                    data = _capped(answer, clock, LISTEN_LIMIT_BYTES)
                raise self._refusal(answer, data)
            begins = math.inf if begin_s is None else time.monotonic() + begin_s
            with _Clock(min(ends, begins), answer.extensions["network_stream"]) as clock:
                try:
                    # httpcore reads this timeout anew when the body begins, and then no more.
                    answer.request.extensions["timeout"]["read"] = max(silence_s, begin_s or 0.0)
                    answer.encoding = "utf-8"
                    for event in httpx2.EventSource(answer, max_event_size=EVENT_LIMIT_BYTES):
                        if begin_s is not None:
                            clock.move(min(ends, time.monotonic() + silence_s))
                        yield Event(event.id, event.data)
                except httpx2.ReadTimeout:
                    return
                except httpx2.HTTPError as error:
                    if not clock.ran_out:
                        raise self._failure(error) from error

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _document(self, method: str, path: str, content: bytes | None, deadline: float) -> Any:
        answer, data = self._answer(method, path, content, deadline)
        if not answer.is_success:
            raise self._refusal(answer, data)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise HttpError(
                f"{self.base_url}{path} did not answer with JSON: {data[:80]!r}", status=answer.status_code
            ) from error

    def _answer(
        self, method: str, path: str, content: bytes | None, deadline: float,
        headers: Mapping[str, str] | None = None, limit: int | None = None, *, cut: bool = False,
    ) -> tuple[httpx2.Response, bytes]:  # fmt: skip
        """A request and its whole answer, before the deadline (monotonic)."""
        import httpx2

        left_s = max(0.001, deadline - time.monotonic())
        # Each address of a name is tried for that long, one after the other.
        timeout = httpx2.Timeout(left_s, connect=min(CONNECT_S, left_s / 2))
        # A connection of its own, so that the clock can see it from its beginning.
        sent = self._headers(content) | {"Connection": "close"} | dict(headers or {})
        with _Clock(deadline) as clock:
            try:
                with self._client.stream(
                    method, self.base_url + path, content=content, headers=sent, timeout=timeout,
                    extensions={"trace": clock.watch},
                ) as answer:  # fmt: skip
                    return answer, _capped(answer, clock, limit, cut=cut)
            except httpx2.HTTPError as error:
                failure = self._failure(error)
                raise (_too_slow(self.base_url + path, sent=failure.sent) if clock.ran_out else failure) from error

    def _headers(self, content: bytes | None) -> dict[str, str]:
        headers = {} if content is None else {"Content-Type": "application/json"}
        return headers | self._named | ({"Authorization": f"Bearer {self._key.reveal()}"} if self._key else {})

    def _failure(self, error: httpx2.HTTPError) -> HttpError:
        import httpx2

        what = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        sent = not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout))
        return HttpError(f"{self.base_url} did not answer properly: {what}", sent=sent, hint="See: podlab model list")

    def _refusal(self, answer: httpx2.Response, data: bytes) -> HttpError:
        body = redact(data.decode(errors="replace"))  # some servers repeat the key they refuse
        return HttpError(
            f"{self.base_url} answered {answer.status_code}: {_reason(body)}",
            status=answer.status_code,
            body=body[:2000],
            retry_after=answer.headers.get("retry-after", ""),
            hint="Its key is wrong or missing." if answer.status_code in (401, 403) else "",
        )


class _Clock:
    """Cuts a connection at `deadline` (monotonic). A read's own timeout begins anew with each byte of a slow drip."""

    def __init__(self, deadline: float, stream: Any = None) -> None:
        self.ran_out = False
        self._stream = stream
        self._deadline = deadline
        self._timer: threading.Timer | None = None
        self._rings_at = math.inf
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with self._lock:
            self._set()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.move(math.inf)

    def move(self, deadline: float) -> None:
        """Another deadline. A later one costs nothing: the timer looks again when it rings."""
        with self._lock:
            self._deadline = deadline
            if deadline < self._rings_at or deadline == math.inf:
                self._set()

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = None, self._deadline
        if self._deadline < math.inf:
            self._timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._ring)
            self._timer.daemon = True
            self._timer.start()

    def _ring(self) -> None:
        with self._lock:
            if time.monotonic() < self._deadline:
                self._set()
                return
        self._cut()

    def watch(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's "trace" extension: called at each step of a request, here for the connection it makes."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._stream = info["return_value"]

    def _cut(self) -> None:
        self.ran_out = True
        if self._stream is not None and (connection := self._stream.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):  # closed already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _capped(answer: httpx2.Response, clock: _Clock, limit: int | None = None, *, cut: bool = False) -> bytes:
    """The body, of at most `limit` bytes (BODY_LIMIT_BYTES), before the clock runs out; `cut`: of a longer one, its
    beginning."""
    limit = BODY_LIMIT_BYTES if limit is None else limit
    data = bytearray()
    for piece in answer.iter_bytes():
        data += piece
        if len(data) > limit and cut:
            return bytes(data[:limit])
        if len(data) > limit:
            raise HttpError(f"{answer.url} answers with more than {limit} bytes.", status=answer.status_code)
    if clock.ran_out:
        raise _too_slow(str(answer.url))
    return bytes(data)


def _too_slow(url: str, *, sent: bool = True) -> HttpError:
    return HttpError(f"{url} did not finish its answer in time.", sent=sent, hint="See: podlab model list")


def _whole(answer: httpx2.Response, data: bytes) -> Answer:
    return Answer(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, data)


def _reason(body: str) -> str:
    """The sentence in an OpenAI-style error body, else the body's start, on one line and without HTML's tags."""
    try:
        error = json.loads(body)["error"]
        said = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        said = re.sub(r"<[^<>]*>", " ", body[:10_000]) if body.lstrip().startswith("<") else body
    return " ".join(said[:10_000].split())[:300] or "nothing more"


def _host(url: str) -> str:
    """The host of a base URL. Raises BadArgument for what is none, or holds a password, which errors would show."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable():
            if parts.username is None and not parts.query and not parts.fragment:
                return parts.hostname
    except ValueError:  # a port that is no number, brackets without an IPv6 address
        pass
    raise BadArgument(
        f"{re.sub('//.*@', '//', url)!r} is not an address of a server.", hint="Write it as http://127.0.0.1:8000/v1"
    )


def is_loopback_url(url: str) -> bool:
    """Whether a base URL names this very computer. Raises BadArgument for what is no URL of a server."""
    return _is_loopback(_host(url))


def _is_loopback(host: str) -> bool:
    try:  # as the resolver reads it: 127.1 and 2130706433 are this computer, too
        address = ipaddress.ip_address(socket.inet_aton(host))
    except OSError:
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            return host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")
        address = getattr(found, "ipv4_mapped", None) or found
    return address.is_loopback or address.is_unspecified
