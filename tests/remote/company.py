"""A provider's interface as far as a pod's switch uses it: a real server that does what a test tells it.

with Company() as company:
    company.answers["terminate"] = 500        a status, or "hang", "drip", "html", "other", "huge", "locked", "404"
    company.url, company.asked                what came: (method, path, action)
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KEY = "rpa_canary-of-the-pod"
POD = "pod1abc"


class Company:
    """`answers` maps "look", "terminate", "delete" and "stop" to what they are answered with, if not as it should."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.answers: dict[str, int | str] = {}
        self.started_at: str | None = None
        """When it says that it started the pod."""
        self.asked: list[str] = []
        self.ended_by: str | None = None
        self._tls = certificate
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def start(self) -> None:
        """Answer, on the same port as before."""
        company = self

        class Handler(Answers):
            owner = company

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Nobody answers any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def endings(self) -> list[str]:
        """What was asked but looks."""
        return [each for each in self.asked if each != "look"]


class Answers(BaseHTTPRequestHandler):
    owner: Company

    def do_GET(self) -> None:
        self.answer("look")

    def do_DELETE(self) -> None:
        self.answer("delete")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.answer(str(json.loads(self.rfile.read(length)).get("action")))

    def answer(self, what: str) -> None:
        owner = self.owner
        path = f"/v2/pods/{POD}" + ("/action" if what in ("terminate", "stop") else "")
        as_told = self.path == path and self.headers["Authorization"] == f"Bearer {KEY}"
        owner.asked.append(what)
        told = owner.answers.get(what, 200 if as_told and "podlab" in self.headers["User-Agent"] else 401)
        if what != "look" and told == 200:
            owner.ended_by = owner.ended_by or what
        if told == "hang":
            time.sleep(60)
        elif told == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(600):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif told == "html":
            self.say(200, b"<html>welcome</html>")
        elif told == "huge":
            self.say(200, b"[" + b"1," * 5_000_000 + b"1]")
        else:
            value: dict[str, Any] = {"id": POD if told != "other" else "another", "locked": told == "locked", "env": {}}
            if owner.started_at is not None:
                value["startedAt"] = owner.started_at
            status = told if isinstance(told, int) else 200
            if status >= 400:
                value = {"title": "no", "status": status, "detail": f"not with {KEY}\x1b[31m"}
            self.say(status, json.dumps(value).encode())

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
