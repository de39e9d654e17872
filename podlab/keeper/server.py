"""The keeper itself: one per PODLAB_HOME, which clients find by its socket.

Crash-only: what it knows is in keeper.json and on the pods. It ends by itself when nothing was left to keep for
`idle_s`: no command under way, no forward (one that was not used for KEPT_S is closed), no rented pod that may be
billed, and nobody asking. A connection to a pod alone is nothing to keep: it costs a second to make another one.

When a keeper of another build takes over, this one stops listening at once, and stays for what it has begun: commands
and connections through its forwards go on for LINGER_S at most, while new ones are the other keeper's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from podlab import __version__
from podlab.errors import PodlabError, StateDamaged
from podlab.keeper.brakes import Brakes
from podlab.keeper.forwards import Forwards
from podlab.keeper.pods import KeptPods, adopt_agent
from podlab.keeper.sessions import Session
from podlab.transport.kept_errors import pack_error, unexpected
from podlab.transport.kept_place import Place, peer
from podlab.transport.kept_wire import (
    PROTOCOL,
    AskForwards,
    AskStatus,
    ClientHello,
    ClosePort,
    Done,
    DropPod,
    ForwardsReply,
    Inbox,
    KeeperHello,
    Kind,
    NotTheProtocol,
    OpenPort,
    PortReply,
    Reply,
    Start,
    StatusReply,
    Stop,
    Tend,
    build,
    client_hello,
    hello_line,
    pack,
    release,
    send,
    unpack,
)

IDLE_S = 600.0
LINGER_S = 600.0
"""How long commands and forwarded connections may go on after another keeper took over."""
LOOK_S = 1.0
REQUEST_TIMEOUT_S = 10.0
TICK_S = 60.0
GOODBYE_S = 2.0
THREADS = 8192
"""More than there are descriptors for; a command has two. Kept for the next one: to start one takes longer."""

TAKEN_OVER = "another keeper takes over"

_log = logging.getLogger(__name__)


def linger(
    is_busy: Callable[[], bool],
    pause: Callable[[float], object],
    limit_s: float = LINGER_S,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait until nothing is under way, `limit_s` at most; whether that came. `pause` waits up to some seconds."""
    until = clock() + limit_s
    while is_busy():
        if (left_s := until - clock()) <= 0:
            return False
        pause(min(left_s, LOOK_S))
    return True


class Keeper:
    """Serves one PODLAB_HOME from `run` until it is idle, told to stop, asked to hand over, or not found any more."""

    def __init__(self, place: Place, lock: int, *, idle_s: float = IDLE_S) -> None:
        """`lock` is the descriptor that holds the lock; closing it lets another keeper in."""
        self._place = place
        self._lock_descriptor = lock
        self._idle_s = idle_s
        self._started_at = self._busy_at = time.monotonic()
        self._pods = KeptPods()
        self._forwards = Forwards(place.forwards, self._pods.stream)
        self._threads = ThreadPoolExecutor(THREADS, "podlab-keeper")
        self._sessions: set[Session] = set()
        self._under_way = 0
        self._changed = threading.Condition()
        self._end: str | None = None
        self._released = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._forwards.restore()
        self._brakes = Brakes(self._pods, self._forwards.repoint)
        self._listener = place.listen()

    def run(self) -> None:
        """Serve until it is time to end. What is under way may go on for LINGER_S when another keeper takes over."""
        # A signal may be delivered to any thread; by this, whichever it is wakes the one that handles it.
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        _log.info("the keeper of podlab %s serves %s", __version__, self._place.home)
        self._brakes.start()
        self._serve()
        _log.info("the keeper ends: %s", self._end)
        self._release()
        if self._end == TAKEN_OVER:
            linger(self._is_busy, self._pause)
        with self._changed:
            sessions = list(self._sessions)
        for session in sessions:
            session.end()
        self._forwards.cut()
        linger(self._is_busy, self._pause, GOODBYE_S)

    def _is_busy(self) -> bool:
        return bool(self._under_way) or self._forwards.is_carrying()

    def _pause(self, longest_s: float) -> None:
        with self._changed:  # told when a command ends; a forwarded connection ends without a word
            self._changed.wait(longest_s)

    def _serve(self) -> None:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        waiting.register(self._wake_reader, select.POLLIN)
        tick_s = min(TICK_S, self._idle_s / 2)
        next_tick = time.monotonic() + tick_s
        while self._end is None:
            ready = {number for number, _ in waiting.poll(max(0.0, next_tick - time.monotonic()) * 1000)}
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
            if self._listener.fileno() in ready:
                self._accept()
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + tick_s

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            _log.warning("cannot accept: %s", error)  # out of descriptors; some command must end first
            time.sleep(0.1)
            return
        self._threads.submit(self._meet, connection)

    def _tick(self) -> None:
        if not self._place.is_own(self._listener):
            self.end("its socket was removed")
            return
        if self._any_forward_is_left() or self._brakes.is_needed():
            self._busy_at = time.monotonic()
        with self._changed:  # a client is either counted before this, or finds nobody and starts another keeper
            if not self._under_way and time.monotonic() - self._busy_at >= self._idle_s:
                self.end("nothing is left to keep")

    def _any_forward_is_left(self) -> bool:
        try:
            return self._forwards.tend()
        except (OSError, StateDamaged) as error:
            _log.warning("cannot write %s: %s", self._place.forwards, error)
            return True

    def end(self, why: str) -> None:
        """Stop serving, from any thread or a signal; the first reason counts."""
        if self._end is None:
            self._end = why
            with contextlib.suppress(BlockingIOError):  # full: it is awake
                os.write(self._wake_writer, b".")

    def _on_signal(self, number: int, frame: object) -> None:
        if number == signal.SIGTERM:
            self.end("it was sent SIGTERM")  # the others are meant for whoever started it

    def _release(self) -> None:
        """Let another keeper in: nothing of the home is ours after this."""
        self._brakes.stop()
        if self._place.is_own(self._listener):
            self._place.remove()
        self._listener.close()
        try:
            if self._end == TAKEN_OVER:
                self._forwards.hand_over()
            else:
                self._forwards.close_all(forget=self._end == "it was told to stop")
        except (OSError, StateDamaged) as error:
            _log.warning("cannot write %s: %s", self._place.forwards, error)
        os.close(self._lock_descriptor)
        self._released.set()

    def _meet(self, connection: socket.socket) -> None:
        """One client, on a thread of its own."""
        try:
            with connection:
                if peer(connection)[0] != os.getuid():
                    _log.warning("refused a process of user %d", peer(connection)[0])
                    return
                inbox = Inbox(connection)
                if (line := inbox.line(REQUEST_TIMEOUT_S)) is not None:
                    with self._counted() as may_serve:
                        if may_serve:
                            self._greet(connection, inbox, client_hello(line))
        except (OSError, NotTheProtocol) as error:
            _log.debug("a client went away: %s", error)
        except Exception:  # noqa: BLE001  # one client's trouble must not be the others'
            _log.exception("a client could not be served")

    def _greet(self, connection: socket.socket, inbox: Inbox, hello: ClientHello) -> None:
        handing_over = hello.ask == "hand-over"
        if handing_over:
            self.end(TAKEN_OVER)
            self._released.wait(REQUEST_TIMEOUT_S)
        # An older client of the same protocol is served: it would only start what is older, or the same again.
        serves = handing_over or (
            hello.protocol == PROTOCOL
            and (
                hello.build == build()
                or build() in hello.accepts
                or release(hello.version) < release(__version__)
            )
        )  # fmt: skip
        connection.sendall(hello_line(KeeperHello(build(), serves, os.getpid())))
        if not serves or handing_over or (found := inbox.next(REQUEST_TIMEOUT_S)) is None:
            return
        try:
            self._answer(connection, inbox, found[1])
        except PodlabError as error:
            send(connection, (Kind.ERROR, pack_error(error)))
        except (OSError, NotTheProtocol):
            raise
        except Exception as error:
            send(connection, (Kind.ERROR, pack_error(unexpected(error))))
            raise

    def _answer(self, connection: socket.socket, inbox: Inbox, payload: bytes) -> None:
        asked = unpack(payload)
        reply: Reply = Done()
        if isinstance(asked, Start):
            self._run_command(connection, inbox, asked)
            return
        if isinstance(asked, OpenPort):
            adopt_agent(asked.agent)
            reply = PortReply(self._forwards.open(asked.pod, asked.remote_port, asked.local_port))
        elif isinstance(asked, ClosePort):
            self._forwards.close(asked.pod_id, asked.remote_port)
        elif isinstance(asked, DropPod):
            self._forwards.close_pod(asked.pod_id)
            self._pods.drop(asked.pod_id)
        elif isinstance(asked, AskForwards):
            reply = ForwardsReply(self._forwards.rows())
        elif isinstance(asked, AskStatus):
            reply = self._status()
        elif isinstance(asked, Tend):
            self._brakes.tend(asked.environment)
        elif isinstance(asked, Stop):
            self.end("it was told to stop")
            self._released.wait(REQUEST_TIMEOUT_S)
        else:
            raise NotTheProtocol("a client sent a reply")
        send(connection, (Kind.REPLY, pack(reply)))

    def _run_command(self, connection: socket.socket, inbox: Inbox, asked: Start) -> None:
        adopt_agent(asked.agent)
        self._forwards.repoint(asked.pod)
        with self._pods.used(asked.pod) as transport:
            session = Session(
                connection, inbox, self._threads, transport.start(asked.argv, env=asked.env, cwd=asked.cwd)
            )
            with self._changed:
                self._sessions.add(session)
            try:
                session.run()
            finally:
                with self._changed:
                    self._sessions.discard(session)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[bool]:
        """Whether a client may still be served; this keeper does not end by itself meanwhile."""
        with self._changed:
            may_serve = self._end is None
            self._under_way += 1
        try:
            yield may_serve
        finally:
            with self._changed:
                self._under_way -= 1
                self._busy_at = time.monotonic()
                self._changed.notify_all()

    def _status(self) -> StatusReply:
        up_s = time.monotonic() - self._started_at
        counts = len(self._sessions), len(self._forwards.rows())
        tends = self._brakes.is_needed()
        return StatusReply(os.getpid(), __version__, build(), up_s, *counts, self._pods.ids(), tends)
