"""A model hub on this computer, with a second host for the bytes, that fails in the ways the real ones do."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

COMMIT = "c0ffee" * 6 + "c0ff"
CHUNK = 16 * 1024
Answer = Callable[["Request"], bool]
"""Does something to a request; True: it was answered, False: go on as usual."""


@dataclass
class Seen:
    """One request as it arrived."""

    host: str
    method: str
    path: str
    headers: dict[str, str]


class Request(http.server.BaseHTTPRequestHandler):
    """Answers as the hub or as its store, after the faults had their turn."""

    hub: Hub
    role: str

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.seen.append(Seen(self.role, self.command, self.path, dict(self.headers)))
        for fault in list(self.hub.faults):
            if fault.role == self.role and fault.method == self.command and fault.times:
                fault.times -= 1
                if fault.act(self):
                    return
                break
        if self.role == "hub":
            self.send(302, {"Location": f"{self.hub.store_url}{self.path}", "X-Repo-Commit": COMMIT,
                            "X-Linked-ETag": f'"{self.hub.sha256}"',
                            "X-Linked-Size": str(len(self.hub.data))})  # fmt: skip
        else:
            self.send_data()

    def send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_data(self, upto: int | None = None, data: bytes | None = None) -> None:
        """The file from where it was asked for; `upto` cuts the connection at that byte of the file."""
        data = self.hub.data if data is None else data
        start, ranged = 0, self.headers.get("Range")
        if ranged and self.headers.get("If-Range", self.hub.etag) == self.hub.etag:
            start = int(ranged.removeprefix("bytes=").rstrip("-"))
        fields = {"ETag": self.hub.etag, "Content-Length": str(len(data) - start)}
        if start:
            fields["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if start else 200)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        end = len(data) if upto is None else upto
        for at in range(start, end, CHUNK):
            self.wfile.write(data[at : min(at + CHUNK, end)])
            if self.hub.gate is not None and at >= len(data) // 2:
                self.hub.half.set()
                self.hub.gate.wait(30)
        if upto is not None:
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, *args: object) -> None:
        """Nothing to say."""


@dataclass
class Fault:
    """What one host does to the next `times` requests with `method`."""

    role: str
    method: str
    act: Answer
    times: int = 1


@dataclass
class Hub:
    """Both hosts. They differ in their port, which is another host to whoever holds a token."""

    data: bytes
    etag: str = '"tag-1"'
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    gate: threading.Event | None = None
    """When set: an answer stops half way until the event."""
    half: threading.Event = field(default_factory=threading.Event)
    _servers: list[http.server.ThreadingHTTPServer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hub_url, self.store_url = (self._serve(role) for role in ("hub", "store"))

    def _serve(self, role: str) -> str:
        handler: Any = type("Bound", (Request,), {"hub": self, "role": role})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def fail(self, role: str, method: str, act: Answer, times: int = 1) -> None:
        self.faults.append(Fault(role, method, act, times))

    def says(self, role: str, method: str, status: int, times: int = 1, **headers: str) -> None:
        """The next requests get this status and nothing else. `X_Error_Code` is the header X-Error-Code."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.fail(role, method, lambda request: request.send(status, fields) is None, times)

    def cuts(self, at: int, times: int = 1) -> None:
        """The store's next answers end at byte `at` of the file."""
        self.fail("store", "GET", lambda request: request.send_data(at) is None, times)

    def count(self, role: str, method: str) -> int:
        return sum((seen.host, seen.method) == (role, method) for seen in self.seen)

    def stop(self) -> None:
        if self.gate is not None:
            self.gate.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
