"""One command on a pod, bridged to one client: two threads, a socket, and nothing that can grow.

Output is read from SSH only as fast as the client takes it: what waits, waits in the pod's window (2 MiB) and in the
socket. Input likewise, the other way round.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from concurrent.futures import Executor, Future

from podlab.errors import LinkLost, PodlabError
from podlab.transport.base import Process
from podlab.transport.kept_errors import pack_error
from podlab.transport.kept_wire import Done, Inbox, Kind, NotTheProtocol, pack, pack_status, send

_log = logging.getLogger(__name__)


class Session:
    """Bridges `process` to `connection` until one of them ends."""

    def __init__(self, connection: socket.socket, inbox: Inbox, threads: Executor, process: Process) -> None:
        self._connection = connection
        self._inbox = inbox
        self._threads = threads
        self._process = process

    def run(self) -> None:
        """Announce the command, then carry its output and its status. Returns when it ended or the client let go."""
        listening: Future[None] | None = None
        try:
            send(self._connection, (Kind.REPLY, pack(Done())))
            listening = self._threads.submit(self._listen)
            self._carry()
        except OSError:
            pass  # the client went away
        finally:
            self._process.close()
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # wakes the other thread
            if listening is not None:
                listening.result()

    def end(self) -> None:
        """Let go of the command, from any thread; `run` returns soon."""
        # The client first: how the command ends when it is let go of is not how it would have ended.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._process.close()

    def _carry(self) -> None:
        connection, process = self._connection, self._process
        try:
            while (piece := process.read()) is not None:
                stream, data = piece
                send(connection, (Kind.STDOUT if stream == "stdout" else Kind.STDERR, data))
            try:
                status = process.wait(0)
            except TimeoutError:  # it closed its output and goes on
                send(connection, (Kind.OUTPUT_END, b""))
                send(connection, (Kind.EXIT, pack_status(process.wait())))
            else:
                send(connection, (Kind.OUTPUT_END, b""), (Kind.EXIT, pack_status(status)))
        except LinkLost as error:
            send(connection, (Kind.ERROR, pack_error(error)))

    def _listen(self) -> None:
        """Client -> command. Its going away ends the command."""
        try:
            while (found := self._inbox.next()) is not None:
                kind, payload = found
                if kind is Kind.STDIN:
                    self._process.write(payload)
                elif kind is Kind.STDIN_END:
                    self._process.close_stdin()
        except (BrokenPipeError, PodlabError):
            # The command takes no more: tell the client by taking no more either. Its output goes on.
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)
            return
        except (OSError, NotTheProtocol):
            pass  # gone, or not a client of ours
        self._process.close()
