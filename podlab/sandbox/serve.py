"""The company on a socket: HTTP/1.1 on 127.0.0.1, a thread for each connection."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from podlab.sandbox.asking import Answer, Request
from podlab.sandbox.company import Company
from podlab.sandbox.machines import Machines
from podlab.sandbox.records import Pace
from podlab.sandbox.rest import Rest

LARGEST_BODY = 4 * 2**20
TICK_S = 0.05
SILENCE_S = 3600.0
"""How long a connection on which nothing is ever said stays open."""
DRIP_S = 0.5


class Server(ThreadingHTTPServer):
    """Listens; each answer comes from `answer`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, Talk)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to report."""

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End every connection, whatever is under way on it."""
        self.stopping.set()
        with self._guard:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class Talk(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "podlab-sandbox"
    sys_version = ""
    server: Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: they carry keys."""

    def _serve(self) -> None:
        if not self._from_here():
            self._send(Answer(403, b"this simulated company answers to its own address only"))
            return
        length = self.headers.get("Content-Length") or "0"
        if not length.isascii() or not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True
            self._send(Answer(413))
            return
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        body = self.rfile.read(int(length))
        self._send(self.server.answer(Request(self.command, parts.path, query, headers, body)))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names of http.server

    def _from_here(self) -> bool:
        """Whether the request names this very server: a web page that renamed itself to 127.0.0.1 does not."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        return host in ("127.0.0.1", "localhost") and "Origin" not in self.headers

    def _send(self, answer: Answer) -> None:
        if answer.delivery == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if answer.delivery == "silence":
            self.server.stopping.wait(SILENCE_S)
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.events is not None:
            self._stream(answer)
            return
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if answer.delivery == "cut":
            self.close_connection = True
            self.wfile.write(answer.body[: len(answer.body) // 2])
        elif answer.delivery == "drip":
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.stopping.wait(DRIP_S):
                    break
        else:
            self.wfile.write(answer.body)

    def _stream(self, answer: Answer) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        assert answer.events is not None
        for piece in answer.events:
            if self.server.stopping.is_set():
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if answer.delivery == "cut":
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")


@dataclass(frozen=True)
class Running:
    """A simulated company that is open: where, the key of its account, and its inside for tests."""

    url: str
    key: str
    company: Company
    rest: Rest
    machines: Machines | None
    _stop: Callable[[], None]

    def stop(self) -> None:
        """Close it: no thread, no connection and no process of it is left."""
        self._stop()


def start(
    home: Path,
    *,
    speed: float = 1.0,
    pace: Pace = Pace(),  # noqa: B008 - frozen
    port: int = 0,
    balance_usd: float = 25.0,
    seed: int | None = None,
    now: Callable[[], float] = time.time,
    requests_per_minute: int = 6000,
    machines: bool = True,
    gpu_library: bool = True,
) -> Running:
    """Open a company in this process. `speed` 60: a minute costs an hour. `home` is a folder of its own.

    Without `machines` its pods are words only: nothing runs, and their addresses lead nowhere.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    rng = random.Random(seed)  # noqa: S311 - ids and ports, no keys
    park = Machines(home, gpu_library=gpu_library) if machines else None
    listen = park.listen if park else None
    company = Company(now=now, rng=rng, pace=pace, balance_usd=balance_usd, billing_speed=speed, listen=listen)
    rest = Rest(company, requests_per_minute=requests_per_minute)
    server = Server(("127.0.0.1", port), rest.answer)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_S):
            company.advance()

    threads = [
        threading.Thread(target=tick, name="sandbox clock", daemon=True),
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="sandbox", daemon=True),
    ]
    url = f"http://127.0.0.1:{server.server_address[1]}"
    if park:
        park.open(company, url)
    for thread in threads:
        thread.start()

    def stop() -> None:
        over.set()
        if park:
            park.close()
        server.hang_up()
        server.shutdown()
        server.server_close()
        for book in company.books.values():
            book.close()
        for thread in threads:
            thread.join(5)

    return Running(url, company.key, company, rest, park, stop)
