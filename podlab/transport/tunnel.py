"""A port of this computer that leads to a port of a pod, whatever happens to the connection in between.

The listener stays while links come and go: each connection opens its own channel on the link of the moment. Where
there is none, or the link dies, the client gets a reset: an answer that was cut must not look like one that ended.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from podlab.errors import BadArgument, PodlabError
from podlab.transport.base import Forward
from podlab.transport.wire import no_delay

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
BACKLOG = 256
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Channel(Protocol):
    """What is used of the SSH library's channel."""

    eof_received: int

    def recv(self, nbytes: int) -> bytes: ...
    def send(self, s: bytes) -> int: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class PodStream:
    """A connection to a port of the pod. `closed_by_pod` tells one that the pod closed from one that was cut."""

    channel: Channel
    closed_by_pod: Callable[[], bool]


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
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
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
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            connections = list(self._connections)
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept` on Linux
        except OSError:
            with contextlib.suppress(OSError):  # macOS: a last connection wakes it
                socket.create_connection((LOOPBACK, self.local_port), 1.0).close()
        self._listener.close()
        for connection in connections:
            connection.cut()

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
            if self._closed.is_set():
                connection.cut()
                return
            self._connections.add(connection)
        try:
            connection.carry(self._open_stream(self.remote_port))
        except (PodlabError, OSError, EOFError):
            connection.cut()
        finally:
            with self._lock:
                self._connections.discard(connection)


class _Connection:
    """One client and its channel: a thread for each direction, each direction ending by itself."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._stream: PodStream | None = None
        self._lock = threading.Lock()
        self._done = False

    def carry(self, stream: PodStream) -> None:
        """Carry bytes both ways until both sides have ended."""
        with self._lock:
            self._stream = stream
            if self._done:  # cut while the channel was being opened
                stream.channel.close()
                return
        upward = threading.Thread(target=self._upward, args=(stream,), name="podlab-forwarded-up", daemon=True)
        upward.start()
        if self._downward(stream):
            upward.join()
            self._end(reset=False)
        else:
            self._end(reset=True)

    def cut(self) -> None:
        """End it now, from any thread; the client gets a reset."""
        self._end(reset=True)

    def _downward(self, stream: PodStream) -> bool:
        """Pod -> client. Whether the pod's side came to its own end."""
        channel, client = stream.channel, self._client
        while True:
            try:
                data = channel.recv(CHUNK_BYTES)
            except OSError:
                return False  # the link is dying
            try:
                if data:
                    client.sendall(data)
                elif stream.closed_by_pod():
                    client.shutdown(socket.SHUT_RDWR)  # nothing can be sent either; sets the other thread free
                    return True
                elif channel.eof_received:
                    client.shutdown(socket.SHUT_WR)
                    return True
                else:
                    return False
            except OSError:
                channel.close()  # the client went away; the other thread may be waiting for the pod to take something
                return True

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
            stream.channel.close()  # the client gave up (a reset): so must the pod, or a model goes on writing
        except (OSError, EOFError):
            pass  # the channel is gone, which `_downward` notices

    def _end(self, *, reset: bool) -> None:
        with self._lock:
            if self._done:
                return
            self._done = True
            stream = self._stream
        with contextlib.suppress(OSError):
            if reset:
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                self._client.shutdown(socket.SHUT_RD)  # wakes a thread that waits for the client
        self._client.close()
        if stream is not None:
            with contextlib.suppress(Exception):  # a dying link may raise anything here, and nothing is left to do
                stream.channel.close()
