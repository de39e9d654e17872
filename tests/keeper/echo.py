"""A port of the pod that greets and then sends back what it gets, until the client ends."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class EchoServer:
    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                client.sendall(b"hello\n")
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.close()


def greeting(port: int) -> bytes:
    """What a new connection to a local port hears first; b"" or an OSError when nothing is behind it."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        return client.recv(6)
