"""A client's connection to the keeper: found, started where there is none, and handed over between versions.

A request is sent together with the hello, so starting a command costs one round trip. It is repeated only where the
keeper's own hello never came: the keeper sends that before it does anything.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from podlab import __version__
from podlab.durable import locked
from podlab.errors import KeeperError, LinkLost, StateDamaged
from podlab.http import NETWORK
from podlab.transport.kept_errors import unpack_error
from podlab.transport.kept_place import Place, peer
from podlab.transport.kept_wire import (
    PROTOCOL,
    ClientHello,
    Inbox,
    KeeperHello,
    Kind,
    NotTheProtocol,
    Reply,
    Request,
    build,
    hello_line,
    keeper_hello,
    pack,
    release,
    send,
    unpack,
)

START_TIMEOUT_S = 20.0
"""Starting Python takes a fraction of a second, and many of them where all processors are busy."""
HELLO_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 300.0
"""The SSH side has deadlines of its own, for each machine on the way; this one is for a keeper that was suspended."""
READY = b"\0ready"
KEPT_VARIABLES = ("SSH_AUTH_SOCK", "HOME", "PATH", "LANG", "LC_ALL", "LC_CTYPE", "USER", "LOGNAME", "TMPDIR",
                  "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH", "TZ", *NETWORK)  # fmt: skip
"""A keeper ends pods: it reaches providers by the same way as who starts it, and its days begin at the same time."""
WITHOUT = "Without a keeper: set PODLAB_KEEPER=0; `podlab logs` says more."

_accepted: set[str] = set()
"""Other builds this process has come to terms with: it asks each of them at most once to hand over."""


class NoKeeper(Exception):  # it never leaves transport/
    """None answers here, so nothing was done."""


class OtherBuild(Exception):  # it never leaves this file
    """A keeper of another build answered, and did nothing."""

    def __init__(self, hello: KeeperHello) -> None:
        super().__init__(hello.build)
        self.hello = hello


class Link:
    """A connection on which a request was sent and the keeper said that it serves it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.inbox = Inbox(connection)

    def answer(self, pod: str = "") -> bytes:
        """The payload of the REPLY. Raises what the keeper sends instead, LinkLost when it went away."""
        try:
            found = self.inbox.next(ANSWER_TIMEOUT_S)
        except (OSError, NotTheProtocol) as error:
            raise _unknown(pod) from error
        if found is None:
            raise _unknown(pod)
        kind, payload = found
        if kind is Kind.ERROR:
            raise unpack_error(payload)
        return payload

    def close(self) -> None:
        """End the connection."""
        self.connection.close()


def request(place: Place, asked: Request, *, pod: str = "", start: bool = True) -> Reply:
    """Ask for something that has one reply. Raises NoKeeper when there is none and `start` is off."""
    link = connect(place, asked, start=start)
    try:
        reply = unpack(link.answer(pod))
    finally:
        link.close()
    return reply  # type: ignore[return-value]  # a keeper of this protocol sends replies


def connect(place: Place, asked: Request, *, start: bool = True) -> Link:
    """Send a request to the keeper that serves this build; one is started, or replaced, where needed.

    Raises KeeperError when that does not succeed within START_TIMEOUT_S, and NoKeeper when `start` is off.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    fresh = False
    taken: set[str] = set()
    while True:
        try:
            return _send(place, asked, _accepted | taken)
        except NoKeeper as error:
            if not start:
                raise
            if time.monotonic() > deadline:
                raise KeeperError("The keeper ends as soon as it is started.", hint=WITHOUT) from error
            start_keeper(place, deadline)
        except OtherBuild as other:
            if not start:  # one that only asks replaces nothing
                if other.hello.protocol != PROTOCOL or other.hello.build in taken:
                    raise NoKeeper from other
                taken.add(other.hello.build)
                continue
            _come_to_terms(place, other.hello, deadline, just_started=fresh)
        fresh = True


def _send(place: Place, asked: Request, accepts: set[str]) -> Link:
    connection = _dial(place)
    try:
        hello = hello_line(ClientHello(build(), accepts=tuple(accepts)))
        # A keeper that does not get all of it does nothing, so an error here means the same as no keeper.
        try:
            send(connection, (Kind.REQUEST, pack(asked)), before=hello)
        except (ConnectionError, TimeoutError):
            pass  # it may have refused by its hello already
        connection.settimeout(None)
        link = Link(connection)
        answered = _hello(link.inbox, connection)
        if not answered.serves:
            raise OtherBuild(answered)
    except BaseException:
        connection.close()
        raise
    return link


def _hello(inbox: Inbox, connection: socket.socket) -> KeeperHello:
    try:
        line = inbox.line(HELLO_TIMEOUT_S)
        if line is None:
            raise NoKeeper
        return keeper_hello(line)
    except TimeoutError as error:
        raise KeeperError(
            f"The keeper (process {peer(connection)[1]}) does not answer.",
            hint="End that process; the next use starts another one.",
        ) from error
    except ConnectionError as error:
        raise NoKeeper from error
    except NotTheProtocol as error:
        raise KeeperError("What listens on the keeper's socket is no keeper.", hint=WITHOUT) from error


def _dial(place: Place) -> socket.socket:
    """A connection to whoever listens, of this user, with HELLO_TIMEOUT_S set on it."""
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise KeeperError(f"The keeper cannot be reached: {error.strerror}.", hint=WITHOUT) from error
    try:
        connection.settimeout(HELLO_TIMEOUT_S)
        connection.connect(place.address())
        if peer(connection)[0] != os.getuid():
            raise KeeperError(
                f"The keeper behind {place.socket_path} is another user's.", hint="Set PODLAB_HOME to yours."
            )
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError) as error:
        connection.close()
        raise NoKeeper from error
    except TimeoutError as error:
        connection.close()
        raise KeeperError("The keeper takes no connections.", hint=WITHOUT) from error
    except OSError as error:
        connection.close()
        said = f"The keeper cannot be reached: {place.socket_path}: {error.strerror or error}."
        raise KeeperError(said, hint=WITHOUT) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _come_to_terms(place: Place, other: KeeperHello, deadline: float, *, just_started: bool) -> None:
    """A keeper of another build answered.

    1. It was started just now, or has handed over before: what is installed is not what this process has loaded.
       With the same protocol that is good enough; otherwise this process must be restarted.
    2. It is newer, in another protocol: this process must be restarted, too.
    3. Otherwise it hands over to one of what is installed now, and lets its commands finish.
    """
    known = just_started or other.build in _accepted
    _accepted.add(other.build)
    if known and other.protocol == PROTOCOL:
        return
    if known or (other.protocol > PROTOCOL and release(other.version) >= release(__version__)):
        raise KeeperError(
            f"The keeper of podlab {other.version} and this podlab ({__version__}) do not understand each other.",
            hint="Restart this kernel: podlab was probably updated since it started.",
        )
    with contextlib.suppress(NoKeeper):  # it ended by itself, or another client was faster
        connection = _dial(place)
        try:
            connection.sendall(hello_line(ClientHello(build(), ask="hand-over")))
            _hello(Inbox(connection), connection)
        except ConnectionError:
            pass
        finally:
            connection.close()
    start_keeper(place, deadline)


def start_keeper(place: Place, deadline: float) -> None:
    """Start a keeper unless one listens by now. Raises KeeperError with the last line it said."""
    with _start_lock(place, deadline):
        try:
            _dial(place).close()
            return  # another client was faster
        except NoKeeper:
            pass
        said, ready = _spawn(place, deadline)
    if not ready:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise KeeperError(f"The keeper did not start: {last[0][:300]}", hint=WITHOUT)


def _spawn(place: Place, deadline: float) -> tuple[bytes, bool]:
    """What it said on stderr until it was ready, ended or late; and whether it was ready."""
    try:
        ours, theirs = os.pipe()
    except OSError as error:
        raise KeeperError(f"The keeper cannot be started: {error.strerror}.", hint=WITHOUT) from error
    try:
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "podlab.keeper"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=theirs,
                env=_environment(place),
                cwd="/",
                umask=0o077,
                start_new_session=True,
            )
        except OSError as error:
            why = f"{sys.executable}: {error.strerror or error}"
            raise KeeperError(f"The keeper cannot be started: {why}.", hint=WITHOUT) from error
        finally:
            os.close(theirs)
        said = b""
        waiting = select.poll()
        waiting.register(ours, select.POLLIN)
        while not said.endswith(READY):
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                said += b"\nit was not ready in time"
                break
            if not (data := os.read(ours, 65536)):
                break
            said = (said + data)[-65536:]
        child.wait()  # it detaches: the keeper is a child of nobody here
        return said, said.endswith(READY)
    finally:
        os.close(ours)


def _environment(place: Place) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name in KEPT_VARIABLES or name.startswith("PODLAB_")}
    kept["PODLAB_HOME"] = str(place.home)
    root = Path(__file__).parent.parent.parent
    if root.name not in ("site-packages", "dist-packages"):
        kept["PYTHONPATH"] = str(root)  # a checkout that was found by the working folder or a path of this process
    return kept


@contextlib.contextmanager
def _start_lock(place: Place, deadline: float) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(place.start_lock, wait_s=max(0.0, deadline - time.monotonic())))
        except StateDamaged as error:
            message = f"The keeper cannot be started: {error.message}"
            raise StateDamaged(message, hint=f"{error.hint} {WITHOUT}") from error
        yield


def _unknown(pod: str) -> LinkLost:
    return LinkLost(
        f"The keeper ended while it was asked about pod {pod!r}; whether it did that is unknown.",
        pod=pod,
        hint="The next command starts it again.",
    )
