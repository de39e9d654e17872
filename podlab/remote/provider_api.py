"""The provider's interface as a pod may use it for itself: look at the own pod, and end it. Part of the watchdog.

Standard library only, Python 3.8 or newer. Routes and the pod-scoped key: RunPod's REST v2 (docs.runpod.io,
`/v2/openapi.json`); a User-Agent is required there. No proxy of the environment is used, no redirect is followed, and
http without TLS only on this machine's own addresses. Every request runs in a child process (children.py) that is
killed at its deadline, so that a resolver, a handshake or an endless answer that hangs holds up nobody.
"""

from __future__ import annotations

import base64
import calendar
import json
import re
import socket
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    import ssl
    from collections.abc import Mapping

    from podlab.remote.machine import Json

BASE_URL = "https://api.runpod.io"
AGENT = "podlab-switch/1"
BODY_LIMIT_BYTES = 2**20
CONNECT_S = 7.0
"""For each address of the provider's name: an IPv6 one that leads nowhere must not take the whole deadline."""
POD_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
KEY = re.compile(r"[!-~]{1,512}")
MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(Z|[+]00:?00| [+]0000 UTC)")
STARTS = ("startedAt", "lastStartedAt")
"""What a provider calls the moment of a pod's last start. Not `createdAt`: a pod that was stopped is older than its
run, and would have no time left when it runs again."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ACTIONS: tuple[tuple[str, str, str], ...] = (
    ("terminate", "POST", "/action"), ("delete", "DELETE", ""), ("stop", "POST", "/action"),
)  # fmt: skip
"""(what it is called, method, what follows the pod's address), in the order they are tried."""


class Api:
    """The own pod at its provider. `problem` says why it cannot be asked at all, else it is ""."""

    def __init__(self, env: Mapping[str, str], roots: str) -> None:
        """`roots` are certificates in base64, an empty line between two, for where the system has none."""
        self.pod = env.get("RUNPOD_POD_ID", "")
        self._key = env.get("RUNPOD_API_KEY", "").strip()
        self._roots = roots
        base = env.get("RUNPOD_API_BASE_URL", "").strip().rstrip("/") or BASE_URL
        self.base = base[: -len("/v2")] if base.endswith("/v2") else base
        self.known_address = ""
        """Where it answered last, for when its name cannot be looked up any more."""
        self.problem = self._problem()

    def _problem(self) -> str:
        if not POD_ID.fullmatch(self.pod):
            return "there is no RUNPOD_POD_ID in the environment of the start command"
        if not KEY.fullmatch(self._key):
            return "there is no RUNPOD_API_KEY in the environment of the start command"
        parts = urllib.parse.urlsplit(self.base)
        try:
            port_is_one = parts.port is None or parts.port > 0
        except ValueError:
            port_is_one = False
        if parts.scheme not in ("https", "http") or not parts.hostname or not port_is_one or parts.query:
            return f"RUNPOD_API_BASE_URL is no address: {self.base[:200]}"
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            return f"RUNPOD_API_BASE_URL is not https: {self.base[:200]}"
        if parts.scheme == "https":
            try:
                import ssl  # noqa: F401
            except ImportError:
                return "this Python has no TLS"
        return ""

    def look(self) -> Json:
        """The own pod, harmlessly: {"status", "detail", "id", "locked", "run", "run_s", ...}. Status 0: no answer.

        `run` is when the provider started the pod, in its words ("": it does not say), and `run_s` how long ago that
        was when it answered, by its own clock (None: it does not say)."""
        return self._ask("GET", "")

    def act(self, action: str) -> Json:
        """One attempt to end it."""
        method, path = next(each[1:] for each in ACTIONS if each[0] == action)
        return self._ask(method, path, {"action": action} if path else None)

    def _ask(self, method: str, path: str, given: Json | None = None) -> Json:
        import http.client

        parts = urllib.parse.urlsplit(self.base)
        body = None if given is None else json.dumps(given).encode()
        headers = {"Authorization": f"Bearer {self._key}", "User-Agent": AGENT, "Accept": "application/json",
                   "Connection": "close"}  # fmt: skip
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            link = self._link(parts)
            link.request(method, f"{parts.path}/v2/pods/{self.pod}{path}", body, headers)
            peer = str(link.sock.getpeername()[0])
            answer = link.getresponse()
            said, date = answer.read(BODY_LIMIT_BYTES), answer.getheader("Date", "")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return {"status": 0, "detail": self._shown(f"no answer: {type(error).__name__}: {error}")}
        return {"status": answer.status, "address": peer, **self._read(said, date)}

    def _read(self, said: bytes, date: str) -> Json:
        try:
            told = json.loads(said.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return {"detail": "its answer is no JSON"} if said else {"detail": ""}
        if not isinstance(told, dict):
            return {"detail": "its answer is no object"}
        words = [told.get(name) for name in ("title", "detail", "error", "message")]
        started = next((told[name] for name in STARTS if isinstance(told.get(name), str)), "")[:64]
        return {
            "detail": self._shown(": ".join(word for word in words if isinstance(word, str))),
            "id": told.get("id"), "locked": told.get("locked") is True,
            "run": started if moment(started) is not None else "", "run_s": age_s(started, date),
        }  # fmt: skip

    def _shown(self, text: str) -> str:
        """Of what it says: as much as a log may hold, and never the key."""
        text = text.replace(self._key, "***") if self._key else text
        return re.sub(r"[^ -~]+", " ", text)[:200]

    def _link(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        import http.client

        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=CONNECT_S)
        link = http.client.HTTPSConnection(host, parts.port, timeout=CONNECT_S, context=context_with(self._roots))
        # As the class does it, but where the name cannot be looked up its last address will do: the certificate tells
        # whether it is still the provider's.
        link._create_connection = self._connect  # type: ignore[attr-defined]
        return link

    def _connect(self, address: tuple[str, int], *given: object) -> socket.socket:
        try:
            return socket.create_connection(address, CONNECT_S)
        except socket.gaierror:
            if not self.known_address:
                raise
            return socket.create_connection((self.known_address, address[1]), CONNECT_S)


def moment(text: str) -> float | None:
    """A provider's time as seconds since 1970; None for what is none."""
    found = MOMENT.fullmatch(text)
    if found is None:
        return None
    return calendar.timegm(tuple(int(each) for each in found.groups()[:6])) + float(found[7] or 0)


def age_s(started: str, date: str) -> float | None:
    """How old a moment of the provider's was at an answer's Date; None where either makes no sense."""
    from email.utils import parsedate_to_datetime

    then = moment(started)
    try:
        now = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return None if then is None else max(0.0, now - then)


def context_with(roots: str) -> ssl.SSLContext:
    """What checks the provider's certificate: the system's authorities where it has any, and those sent along, as
    slim images have none and old ones lack the newer."""
    import ssl

    context = ssl.create_default_context()
    packed = b"".join(base64.b64decode(each) for each in roots.split("\n\n"))
    if packed:
        context.load_verify_locations(cadata=packed)
    return context


def refusal(answer: Json) -> str:
    """An answer as a sentence."""
    detail = str(answer.get("detail") or "")
    status = answer.get("status") or 0
    said = f"HTTP {status}" if status else ""
    return ": ".join(each for each in (said, detail) if each) or "no answer"
