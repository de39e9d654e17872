"""The one HTTP client: deadlines over the whole call, capped bodies, server-sent events, our own errors.

Addresses on this computer never go through a proxy, whatever the environment says: an endpoint's key must not leave.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from podlab.errors import BadArgument, HttpError
from podlab.secrets import Secret

if TYPE_CHECKING:
    import httpx2

BODY_LIMIT_BYTES = 16 * 2**20
EVENT_LIMIT_BYTES = 1 * 2**20
CONNECT_S = 10.0


class Http:
    """Calls one server. `base_url` has no trailing slash; `key` goes as a bearer token. Safe with several threads."""

    def __init__(self, base_url: str, *, key: Secret | None = None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadArgument(f"{base_url!r} is not an address of a server.", hint="Write it as http://127.0.0.1:8000/v1")
        self.base_url = base_url.rstrip("/")
        self._key = key
        import httpx2

        self._client = httpx2.Client(trust_env=not _is_loopback(parts.hostname), follow_redirects=False)

    def get_json(self, path: str, *, deadline_s: float = 10.0) -> Any:
        """GET a JSON document; repeated once when the connection failed (GET changes nothing). Raises HttpError."""
        try:
            return self._document("GET", path, None, deadline_s)
        except HttpError as error:
            if error.status != 0:
                raise
            return self._document("GET", path, None, deadline_s)

    def post_json(self, path: str, body: Any, *, deadline_s: float = 60.0) -> Any:
        """POST a JSON document and read one back. Never repeated. Raises HttpError."""
        return self._document("POST", path, body, deadline_s)

    def events(self, path: str, body: Any, *, silence_s: float = 120.0) -> Generator[str, None, None]:
        """POST, then the `data` of each server-sent event as it arrives.

        `silence_s` is the longest wait for the next piece. Closing the iterator closes the connection, which tells
        the server to stop. Raises HttpError when the answer is no success, or the stream breaks.
        """
        import httpx2

        timeout = httpx2.Timeout(silence_s, connect=CONNECT_S)
        try:
            with self._client.stream(
                "POST", self.base_url + path, json=body, headers=self._headers(), timeout=timeout
            ) as answer:
                if not answer.is_success:
                    raise self._refusal(answer, _capped(answer, time.monotonic() + CONNECT_S))
                for event in httpx2.EventSource(answer, max_event_size=EVENT_LIMIT_BYTES):
                    yield event.data
        except httpx2.HTTPError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _document(self, method: str, path: str, body: Any, deadline_s: float) -> Any:
        import httpx2

        deadline = time.monotonic() + deadline_s
        timeout = httpx2.Timeout(deadline_s, connect=min(CONNECT_S, deadline_s))
        try:
            with self._client.stream(
                method, self.base_url + path, json=body, headers=self._headers(), timeout=timeout
            ) as answer:
                data = _capped(answer, deadline)
                if not answer.is_success:
                    raise self._refusal(answer, data)
        except httpx2.HTTPError as error:
            raise self._failure(error) from error
        try:
            return json.loads(data)
        except ValueError as error:
            raise HttpError(
                f"{self.base_url}{path} did not answer with JSON: {data[:80]!r}", status=answer.status_code
            ) from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.reveal()}"} if self._key else {}

    def _failure(self, error: httpx2.HTTPError) -> HttpError:
        what = str(error) or type(error).__name__
        return HttpError(f"{self.base_url} did not answer properly: {what}", hint="See: podlab model list")

    def _refusal(self, answer: httpx2.Response, data: bytes) -> HttpError:
        body = data.decode(errors="replace")
        return HttpError(
            f"{self.base_url} answered {answer.status_code}: {_reason(body)}",
            status=answer.status_code,
            body=body[:2000],
            hint="Its key is wrong or missing." if answer.status_code in (401, 403) else "",
        )


def _capped(answer: httpx2.Response, deadline: float) -> bytes:
    """The body, of at most BODY_LIMIT_BYTES, before `deadline` (monotonic); a slow drip does not go on for ever."""
    data = bytearray()
    for piece in answer.iter_bytes():
        data += piece
        if len(data) > BODY_LIMIT_BYTES:
            raise HttpError(f"{answer.url} answers with more than {BODY_LIMIT_BYTES} bytes.", status=answer.status_code)
        if time.monotonic() > deadline:
            raise HttpError(f"{answer.url} did not finish its answer in time.")
    return bytes(data)


def _reason(body: str) -> str:
    """The sentence in an OpenAI-style error body, else the body's start."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:300]
    except (ValueError, KeyError, TypeError):
        return body[:300] or "nothing more"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
