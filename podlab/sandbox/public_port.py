"""A port outside that leads to a port of a simulated pod, as the company's proxy and its port mapping do."""

from __future__ import annotations

import contextlib
import socket
import threading

from podlab.sandbox.container import Container
from podlab.sandbox.processes import listens

READ_BYTES = 64 * 1024


class PublicPort:
    """Listens on 127.0.0.1; a connection is closed at once while nothing of the pod listens on `inside`."""

    def __init__(self, container: Container, inside: int) -> None:
        self._container = container
        self._inside = inside
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="sandbox port", daemon=True).start()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="sandbox port", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if not listens({each.pid for each in self._container.processes()}, self._inside):
                return
            try:
                pod = socket.create_connection(("127.0.0.1", self._inside), 10.0)
            except OSError:
                return
            with pod:
                pod.settimeout(None)
                with self._lock:
                    self._open |= {client, pod}
                back = threading.Thread(target=_pour, args=(pod, client), name="sandbox port", daemon=True)
                back.start()
                _pour(client, pod)
                back.join()
                with self._lock:
                    self._open -= {client, pod}


def _pour(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(READ_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # one of them went away: the other one has nobody to talk to
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
