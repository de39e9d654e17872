"""A port of this computer that leads to a port of a pod, whatever happens to the connection in between.

The listener stays while links come and go: each connection opens its own channel on the link of the moment. Where
there is none, or the link dies, the client gets a reset: an answer that was cut must not look like one that ended.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from paramiko.buffered_pipe import BufferedPipe

from podlab.errors import BadArgument, PodlabError, Unreachable
from podlab.transport.base import Forward
from podlab.transport.wire import no_delay

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
BACKLOG = 256
LOOK_MS = 500
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Channel(Protocol):
    """What is used of the SSH library's channel."""

    eof_received: int

    def recv(self, nbytes: int) -> bytes: ...
    def send(self, s: bytes) -> int: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


class Outlet(BufferedPipe):  # type: ignore[type-arg]  # generic in its stubs only
    """What a channel has received and nobody has read; it can be led into a socket.

    Then the link's reading thread puts what comes in straight into the socket, which spares each token the way through
    another thread. What the socket does not take at once is left to whoever reads: he writes it to the socket
    himself, and until he comes back for more everything else waits behind it.
    """

    _lock: threading.Lock
    _buffer: array[Any]

    def __init__(self) -> None:
        super().__init__()
        self._socket: socket.socket | None = None
        self._taken: Callable[[int], None] | None = None
        self._is_out = False

    def lead_to(self, client: socket.socket | None, taken: Callable[[int], None] | None = None) -> None:
        """Lead into `client` from now on, None: no longer. `taken` is told how many bytes went there."""
        with self._lock:
            self._socket, self._taken = client, taken

    def feed(self, data: bytes) -> None:
        count = 0
        with self._lock:
            taken = self._taken
            if self._socket is not None and not self._is_out and not self._buffer:
                try:
                    count = self._socket.send(data, socket.MSG_DONTWAIT)
                except OSError:
                    pass  # it is full, or broken: the reader will find out
        if count < len(data):
            super().feed(data[count:])
        if count and taken is not None:
            taken(count)

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        with self._lock:
            self._is_out = False
        data: bytes = super().read(nbytes, timeout)
        return data

    def _buffer_tobytes(self, limit: int | None = None) -> bytes:
        # Called with the lock held, at the moment when bytes are given to a reader.
        self._is_out = True
        return bytes(self._buffer[:limit])


@dataclass(frozen=True)
class PodStream:
    """A connection to a port of the pod.

    `closed_by_pod` tells one that the pod closed from one that was cut; `lead_to` is `Outlet.lead_to` with the pod told
    to send more as bytes are taken.
    """

    channel: Channel
    closed_by_pod: Callable[[], bool]
    lead_to: Callable[[socket.socket | None], None]


class PortForward(Forward):
    """Listens on 127.0.0.1 and nowhere else. `open_stream` connects to a port of the pod; it may block and raise."""

    def __init__(
        self, pod: str, open_stream: Callable[[int], PodStream], remote_port: int, local_port: int = 0
    ) -> None:
        for port, least in ((remote_port, 1), (local_port, 0)):
            if not least <= port <= 65535:
                raise BadArgument(f"{port} is not a port.", hint="A number from 1 to 65535.")
        self._open_stream = open_stream
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._is_cut = False
        try:
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(f"Pod {pod!r}: no port can be opened here: {error.strerror}.", pod=pod) from error
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((LOOPBACK, local_port))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            raise BadArgument(
                f"Port {local_port} of this computer cannot be used for pod {pod!r}: {error.strerror}.",
                hint="Leave the port out to get a free one.",
            ) from error
        self.remote_port = remote_port
        self.local_port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"podlab-forward-{pod}-{remote_port}", daemon=True).start()

    def close(self) -> None:
        self.retire()
        with self._lock:
            self._is_cut = True
            connections = list(self._connections)
        for connection in connections:
            connection.cut()

    def retire(self) -> None:
        """Stop listening, so that another process can on the same port. Connections that are open go on."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept` on Linux
        except OSError:
            with contextlib.suppress(OSError):  # macOS: a last connection wakes it
                socket.create_connection((LOOPBACK, self.local_port), 1.0).close()
        self._listener.close()

    def connection_count(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._connections)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._closed.wait(0.1)  # closed, or out of file descriptors: others must close some first
                continue
            threading.Thread(target=self._serve, args=(client,), name="podlab-forwarded", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        no_delay(client)
        connection = _Connection(client)
        with self._lock:
            self._connections.add(connection)
            if self._is_cut:
                connection.cut()
        try:
            connection.carry(lambda: self._open_stream(self.remote_port))
        finally:
            with self._lock:
                self._connections.discard(connection)


class _Connection:
    """One client and its channel. `carry` owns both: only it closes the client, when no other thread uses it, because
    a closed descriptor's number may be another connection's a moment later."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._stream: PodStream | None = None
        self._lock = threading.Lock()
        self._is_cut = False
        self._is_closed = False

    def carry(self, open_stream: Callable[[], PodStream]) -> None:
        """Carry bytes both ways until both sides have ended. The client gets a reset unless the pod came to its end."""
        is_whole = False
        upward: threading.Thread | None = None
        try:
            stream = open_stream()
            with self._lock:
                self._stream = stream
            upward = threading.Thread(target=self._upward, args=(stream,), name="podlab-forwarded-up", daemon=True)
            upward.start()
            stream.lead_to(self._client)
            is_whole = self._downward(stream)
            if is_whole:
                upward.join()
        except (PodlabError, OSError, EOFError):
            pass  # no way to the port: the reset says so
        finally:
            self._end(upward, reset=not is_whole)

    def cut(self) -> None:
        """Let `carry` end now, from any thread."""
        with self._lock:
            self._is_cut = True
            if self._is_closed:
                return
            stream = self._stream
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RD)  # wakes a thread that waits for the client; tells it nothing
        if stream is not None:
            _close(stream)

    def _end(self, upward: threading.Thread | None, *, reset: bool) -> None:
        if self._stream is not None:
            self._stream.lead_to(None)
            _close(self._stream)
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_RD)
        if upward is not None:
            upward.join()
        with self._lock:
            self._is_closed = True
            if reset or self._is_cut:
                with contextlib.suppress(OSError):
                    self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._client.close()

    def _downward(self, stream: PodStream) -> bool:
        """Pod -> client. Whether the pod's side came to its own end, or the client went away."""
        channel, client = stream.channel, self._client
        while not self._is_cut:
            try:
                data = channel.recv(CHUNK_BYTES)
            except OSError:
                return False  # the link is dying
            try:
                if data:
                    self._push(data)
                elif stream.closed_by_pod():
                    client.shutdown(socket.SHUT_RDWR)  # nothing can be sent either; sets the other thread free
                    return True
                elif channel.eof_received:
                    client.shutdown(socket.SHUT_WR)
                    return True
                else:
                    return False
            except OSError:
                _close(stream)  # the other thread may be waiting for the pod to take something
                return True
        return False

    def _push(self, data: bytes) -> None:
        """Write all of `data` to the client however slowly it reads; looks now and then whether it was cut."""
        room = select.poll()
        room.register(self._client, select.POLLOUT)
        while data and not self._is_cut:
            try:
                data = data[self._client.send(data, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                room.poll(LOOK_MS)

    def _upward(self, stream: PodStream) -> None:
        """Client -> pod."""
        try:
            while data := self._client.recv(CHUNK_BYTES):
                while data:
                    if not (count := stream.channel.send(data)):
                        return
                    data = data[count:]
            stream.channel.shutdown_write()
        except ConnectionError:
            _close(stream)  # the client gave up (a reset): so must the pod, or a model goes on writing
        except (OSError, EOFError):
            pass  # the channel is gone, which `_downward` notices


def _close(stream: PodStream) -> None:
    with contextlib.suppress(Exception):  # a dying link may raise anything here, and nothing is left to do
        stream.channel.close()
