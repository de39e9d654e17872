"""The socket under an SSH connection: dialled, tuned, counted, and watched for silence.

`Wire` is what the SSH library reads and writes. Everything that passes goes through its two methods, so they are the
one place that knows how much passed and when the pod was last heard.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Protocol

CONNECT_TIMEOUT_S = 10.0
READ_BYTES = 256 * 1024
USER_TIMEOUT_MS = 12_000
"""How long the kernel waits for the other side to acknowledge what was sent (TCP_USER_TIMEOUT, Linux only)."""


class Duplex(Protocol):
    """A socket, or an SSH channel of a machine in between."""

    def send(self, data: bytes, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, timeout_s: float | None, /) -> None: ...
    def close(self) -> None: ...


class Wire:
    """A socket that buffers what it reads, counts bytes and, once armed, raises when nothing comes back.

    Silence counts from the first byte that was sent since something last came in: a link nobody uses is not silent,
    and neither is one whose process was suspended for a while, because then the answer is there to be read.
    Nothing here blocks longer than the timeout set on it, and each return looks at the silence; so a reader and a
    writer that are both stuck in a frozen link still notice.
    """

    def __init__(self, below: Duplex) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.heard_at = time.monotonic()
        self._below = below
        self._buffer = memoryview(b"")
        self._asked_at: float | None = None
        self._silence_s: float | None = None
        self._closed = False

    def arm(self, silence_s: float) -> None:
        """From now on raise ConnectionAbortedError after `silence_s` without an answer."""
        self._asked_at = None
        self._silence_s = silence_s

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Reads ahead: the SSH library asks for 16 bytes, then for the rest."""
        if not self._buffer:
            try:
                data = self._below.recv(READ_BYTES)
            except TimeoutError:
                self._check_silence()
                raise
            self.heard_at = time.monotonic()
            self._asked_at = None
            self.received_bytes += len(data)
            self._buffer = memoryview(data)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(piece)

    def send(self, data: bytes) -> int:
        """Send some of `data`; how many bytes were taken."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        try:
            count = self._below.send(data)
        except TimeoutError:
            self._check_silence()
            raise
        self.sent_bytes += count
        return count

    def _check_silence(self) -> None:
        asked_at, silence_s = self._asked_at, self._silence_s
        if asked_at is not None and silence_s is not None and time.monotonic() - asked_at > silence_s:
            raise ConnectionAbortedError(errno.ECONNABORTED, f"nothing came back for {silence_s:g} s")

    def settimeout(self, timeout_s: float | None) -> None:
        self._below.settimeout(timeout_s)

    def close(self) -> None:
        self._closed = True
        if isinstance(self._below, socket.socket):
            try:
                self._below.shutdown(socket.SHUT_RDWR)  # wakes a reader at once, which `close` alone does not
            except OSError:
                pass  # it was not connected any more
        self._below.close()


def no_delay(connection: socket.socket) -> None:
    """Send small packets at once: Nagle's algorithm and delayed ACKs cost 40 ms an exchange otherwise."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def dial(host: str, port: int) -> socket.socket:
    """A TCP connection. Raises OSError: gaierror, ConnectionRefusedError, TimeoutError after 10 s, ..."""
    connection = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    no_delay(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    return connection


class ProxyProcess:
    """A ProxyCommand: a program whose standard input and output are the connection.

    It gets one end of a socket pair, so the rest of podlab sees a socket that ends when the program ends.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                end = theirs.fileno()
                self._program = subprocess.Popen(
                    list(argv), stdin=end, stdout=end, stderr=subprocess.DEVNULL, start_new_session=True
                )
        except OSError:
            ours.close()
            raise
        self._connection = ours

    def send(self, data: bytes) -> int:
        return self._connection.send(data)

    def recv(self, size: int) -> bytes:
        return self._connection.recv(size)

    def settimeout(self, timeout_s: float | None) -> None:
        self._connection.settimeout(timeout_s)

    def close(self) -> None:
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the program had ended
        self._connection.close()
        if self._program.poll() is None:
            self._program.terminate()
            try:
                self._program.wait(1.0)
            except subprocess.TimeoutExpired:
                self._program.kill()
                self._program.wait()
