"""A pod reached through the keeper: the same contract, and connections that outlive this process.

The keeper is started by its first use. `PODLAB_KEEPER=0` goes without it (transport/ssh.py does the same from here).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from podlab.errors import BadArgument, KeeperError, LinkLost
from podlab.transport import kept_link
from podlab.transport.base import Forward, Process, Stream, Transport
from podlab.transport.kept_errors import unpack_error
from podlab.transport.kept_place import Place
from podlab.transport.kept_wire import (
    AskForwards,
    AskStatus,
    ClosePort,
    DropPod,
    ForwardsReply,
    Kind,
    NotTheProtocol,
    OpenPort,
    PodRef,
    PortReply,
    Start,
    StatusReply,
    Stop,
    Tend,
    send,
    unpack_status,
)
from podlab.transport.ssh_process import command_line
from podlab.types import SshAddress

PIECE_BYTES = 256 * 1024
HELD_BYTES = 4 * 2**20
"""How much unread output `wait` takes in before it waits for a reader; a pod sends 2 MiB unread at most."""


@dataclass(frozen=True)
class KeeperStatus:
    """What the keeper does: `processes` and `forwards` are counts, `pods` ids of pods it knows, `up_s` in seconds,
    `tends` whether it has rented pods to tend."""

    pid: int
    version: str
    up_s: float
    processes: int
    forwards: int
    pods: tuple[str, ...]
    tends: bool = False


def status() -> KeeperStatus | None:
    """What the keeper of this PODLAB_HOME does, None when there is none. Starts nothing."""
    try:
        reply = kept_link.request(Place.here(), AskStatus(), start=False)
    except kept_link.NoKeeper:
        return None
    if not isinstance(reply, StatusReply):
        raise _wrong_reply()
    counts = reply.processes, reply.forwards
    return KeeperStatus(reply.pid, reply.version, reply.up_s, *counts, reply.pods, reply.tends)


def forwards() -> list[tuple[str, int, int]]:
    """Open forwards as (pod id, local port, remote port). A keeper that died is started: it opens them again."""
    place = Place.here()
    try:
        reply = kept_link.request(place, AskForwards(), start=place.forwards.exists())
    except kept_link.NoKeeper:
        return []
    if not isinstance(reply, ForwardsReply):
        raise _wrong_reply()
    return list(reply.rows)


def drop_pod(pod_id: str) -> None:
    """End the keeper's connection to a pod, what runs over it, and its forwards: it was removed or pinned anew."""
    place = Place.here()
    with contextlib.suppress(kept_link.NoKeeper):
        kept_link.request(place, DropPod(pod_id), start=place.forwards.exists())


def tend(environment: dict[str, str]) -> None:
    """Have a keeper that tends the rented pods, with what this process reaches their providers with. One is started
    where there is none. Raises KeeperError."""
    kept_link.request(Place.here(), Tend(environment))


def stop_keeper() -> None:
    """End the keeper, with its commands and forwards; returns when another one can start. Nothing if there is none."""
    with contextlib.suppress(kept_link.NoKeeper):
        kept_link.request(Place.here(), Stop(), start=False)


class KeptTransport(Transport):
    """The way to one pod through the keeper. Finds or starts the keeper at each use."""

    def __init__(self, pod: str, pod_id: str, address: SshAddress) -> None:
        self.pod = pod
        self._pod_ref = PodRef(pod, pod_id, address)
        self._place = Place.here()
        self._processes: weakref.WeakSet[KeptProcess] = weakref.WeakSet()

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        command_line(argv, env, cwd)  # refuses what cannot travel before it does
        asked = Start(self._pod_ref, tuple(argv), dict(env or {}), cwd, _agent())
        link = kept_link.connect(self._place, asked)
        try:
            link.answer(self.pod)
        except BaseException:
            link.close()
            raise
        process = KeptProcess(self.pod, link)
        self._processes.add(process)
        return process

    def move(self, address: SshAddress) -> None:
        """The pod is at another address by now. The keeper leads its open forwards there with the next request."""
        self._pod_ref = PodRef(self.pod, self._pod_ref.id, address)

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        """As the contract says; asking again gives the forward that is there, whatever `local_port` then says.

        It stays when this process ends. Only `Forward.close` closes it.
        """
        for port, least in ((remote_port, 1), (local_port, 0)):
            if not least <= port <= 65535:
                raise BadArgument(f"{port} is not a port.", hint="A number from 1 to 65535.")
        asked = OpenPort(self._pod_ref, remote_port, local_port, _agent())
        reply = kept_link.request(self._place, asked, pod=self.pod)
        if not isinstance(reply, PortReply):
            raise _wrong_reply()
        return KeptForward(self._place, self._pod_ref.id, remote_port, reply.local_port)

    def close(self) -> None:
        """Cut this process's commands. The keeper's connection and its forwards stay."""
        for process in list(self._processes):
            process.cut()


class KeptForward(Forward):
    """A forward that the keeper holds."""

    def __init__(self, place: Place, pod_id: str, remote_port: int, local_port: int) -> None:
        self._place = place
        self._pod_id = pod_id
        self.remote_port = remote_port
        self.local_port = local_port

    def close(self) -> None:
        """Stop listening, for every process that uses it, and forget it. Connections that are open are cut."""
        with contextlib.suppress(kept_link.NoKeeper):
            start = self._place.forwards.exists()  # a keeper that died left it there, and the next would open it
            kept_link.request(self._place, ClosePort(self._pod_id, self.remote_port), start=start)


class KeptProcess(Process):
    """A command that the keeper runs for us; the connection to the keeper is its life."""

    def __init__(self, pod: str, link: kept_link.Link) -> None:
        self._pod = pod
        self._connection = link.connection
        self._inbox = link.inbox
        self._pieces: deque[tuple[Stream, bytes]] = deque()
        self._came_bytes = self._read_bytes = 0
        self._output_ended = False
        self._status: int | None = None
        self._failure: bytes | None = None
        """Why there is no status: an error's payload, b"" when the keeper went away."""
        self._let_go = False
        self._stdin_closed = False
        self._receiving = threading.Lock()
        self._sending = threading.Lock()
        self._room = threading.Event()

    def read(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        deadline = _deadline(timeout_s)
        while True:
            if self._pieces:
                piece = self._pieces.popleft()
                self._read_bytes += len(piece[1])
                self._room.set()
                return piece
            if self._output_ended or self._let_go:
                return None
            if self._failure is not None:
                raise self._lost()
            self._receive(deadline)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._send(Kind.STDIN, bytes(view[:PIECE_BYTES]))
            view = view[PIECE_BYTES:]

    def close_stdin(self) -> None:
        if not self._stdin_closed:
            try:
                self._send(Kind.STDIN_END, b"")
            except (BrokenPipeError, LinkLost):
                pass  # it ended, which reading and waiting tell
            self._stdin_closed = True

    def wait(self, timeout_s: float | None = None) -> int:
        deadline = _deadline(timeout_s)
        while self._status is None:
            if self._failure is not None or self._let_go:
                raise self._lost()
            if self._came_bytes - self._read_bytes > HELD_BYTES:
                self._room.clear()
                full = self._came_bytes - self._read_bytes > HELD_BYTES
                if full and not self._room.wait(_remaining(deadline)):
                    raise TimeoutError("not ended in time: its output is not read")
                continue
            self._receive(deadline)
        return self._status

    def close(self) -> None:
        self._let_go = True
        self.cut()
        # A thread that waits for something is set free by `cut`; only then may the descriptor's number be used again.
        if self._receiving.acquire(timeout=1.0):
            if self._sending.acquire(timeout=1.0):
                self._connection.close()
                self._sending.release()
            self._receiving.release()

    def cut(self) -> None:
        """End the connection; calls under way raise LinkLost."""
        with contextlib.suppress(OSError):  # ended before
            self._connection.shutdown(socket.SHUT_RDWR)

    def _send(self, kind: Kind, payload: bytes) -> None:
        if self._takes_input():
            try:
                with self._sending:
                    send(self._connection, (kind, payload))
                return
            except OSError:
                # The keeper has stopped taking input; what it still has to say tells why.
                self._stdin_closed = True
                while self._is_open():
                    self._receive(None)
        if self._failure is not None and not self._let_go:
            raise self._lost()
        raise BrokenPipeError("the command takes no more input")

    def _takes_input(self) -> bool:
        return not self._stdin_closed and self._is_open()

    def _is_open(self) -> bool:
        return self._status is None and self._failure is None and not self._let_go

    def _receive(self, deadline: float | None) -> None:
        """Take in one frame, unless another thread took one while this one waited. Raises TimeoutError."""
        if not self._receiving.acquire(blocking=False):
            if not self._receiving.acquire(timeout=-1 if deadline is None else _remaining(deadline) or 0.0):
                raise TimeoutError("no output in time")
            self._receiving.release()
            return
        try:
            if self._is_open():
                self._take(self._inbox.next(_remaining(deadline)))
        except TimeoutError:
            raise
        except (OSError, NotTheProtocol):
            self._failure = b""
        finally:
            self._receiving.release()

    def _take(self, found: tuple[Kind, bytes] | None) -> None:
        if found is None:
            self._failure = b""
            return
        kind, payload = found
        if kind is Kind.STDOUT or kind is Kind.STDERR:
            self._came_bytes += len(payload)
            self._pieces.append(("stdout" if kind is Kind.STDOUT else "stderr", payload))
        elif kind is Kind.OUTPUT_END:
            self._output_ended = True
        elif kind is Kind.EXIT:
            self._status = unpack_status(payload)
        elif kind is Kind.ERROR:
            self._failure = payload

    def _lost(self) -> Exception:
        if self._failure and not self._let_go:
            return unpack_error(self._failure)
        what = "was let go" if self._let_go else "was lost, because the keeper ended or this process let go of it,"
        return LinkLost(
            f"The connection to pod {self._pod!r} {what} while a command ran; how it ended is unknown.",
            pod=self._pod,
            hint="The next command connects again.",
        )


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _agent() -> str:
    return os.environ.get("SSH_AUTH_SOCK", "")


def _wrong_reply() -> KeeperError:
    return KeeperError("The keeper gave an answer to another question.", hint=kept_link.WITHOUT)
