"""What the keeper and its clients say to each other over their socket.

    client   a hello line, then one REQUEST frame, in one piece
    keeper   a hello line: whether it serves this client. It is sent before anything is done, so a client that never
             got one knows that nothing was done
             then REPLY or ERROR; for Start, the command's life follows:
    client   STDIN ..., STDIN_END               closing the connection lets go of the command
    keeper   STDOUT and STDERR ..., OUTPUT_END, EXIT; or ERROR at any point

The form of the hello lines and the request to hand over never change; the rest changes with PROTOCOL.
A frame is a type byte, a length (4 bytes, big-endian) and the payload.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import select
import socket
import struct
import time
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from podlab import __version__
from podlab.types import SshAddress

PROTOCOL = 1
HELLO_BYTES = 4096
CONTROL_BYTES = 2**20
DATA_BYTES = 2**20
READ_BYTES = 128 * 1024
_HEADER = struct.Struct("!BI")
_STATUS = struct.Struct("!i")


class Kind(IntEnum):
    """What a frame is."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3
    STDIN = 4
    STDIN_END = 5
    STDOUT = 6
    STDERR = 7
    OUTPUT_END = 8
    EXIT = 9


_DATA = frozenset({Kind.STDIN, Kind.STDOUT, Kind.STDERR})


class NotTheProtocol(Exception):  # it never leaves the two files that speak it
    """The other side said something that has no meaning here."""


@functools.cache
def build() -> str:
    """A fingerprint of the code that speaks here, so that an edited podlab does not talk to an old keeper."""
    digest = hashlib.sha256(__version__.encode())
    package = Path(__file__).parent.parent
    rooms = [*package.glob("keeper/*.py"), *package.glob("transport/*.py"), package / "errors.py", package / "types.py"]
    for path in sorted(rooms):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, to tell which of two is older."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


@dataclass(frozen=True)
class ClientHello:
    """Who asks. `accepts` are builds that this client takes although they are not its own."""

    build: str
    ask: Literal["serve", "hand-over"] = "serve"
    accepts: tuple[str, ...] = ()
    protocol: int = PROTOCOL
    version: str = __version__


@dataclass(frozen=True)
class KeeperHello:
    """Who answers, and whether it will do what was asked."""

    build: str
    serves: bool
    pid: int
    protocol: int = PROTOCOL
    version: str = __version__


@functools.lru_cache(8)
def hello_line(hello: ClientHello | KeeperHello) -> bytes:
    """A hello as it travels."""
    return b"podlab-keeper " + json.dumps(asdict(hello)).encode() + b"\n"


def client_hello(line: bytes) -> ClientHello:
    """The hello in a line from a client. Raises NotTheProtocol."""
    table = _hello(line)
    ask: Literal["serve", "hand-over"] = "hand-over" if table.get("ask") == "hand-over" else "serve"
    accepts = tuple(str(name) for name in table.get("accepts", ()))
    return ClientHello(str(table.get("build")), ask, accepts, int(table.get("protocol", 0)), str(table.get("version")))


def keeper_hello(line: bytes) -> KeeperHello:
    """The hello in a line from a keeper. Raises NotTheProtocol."""
    table = _hello(line)
    numbers = int(table.get("pid", 0)), int(table.get("protocol", 0))
    return KeeperHello(str(table.get("build")), table.get("serves") is True, *numbers, str(table.get("version")))


def _hello(line: bytes) -> dict[str, Any]:
    word, _, text = line.partition(b" ")
    try:
        table = json.loads(text)
    except ValueError as error:
        raise NotTheProtocol("no hello") from error
    if word != b"podlab-keeper" or not isinstance(table, dict):
        raise NotTheProtocol("no hello")
    return table


@dataclass(frozen=True)
class PodRef:
    """A pod as the keeper needs to know it."""

    name: str
    id: str
    address: SshAddress


@dataclass(frozen=True)
class Start:
    """Start a command; the connection is its life. `agent` is the client's SSH_AUTH_SOCK."""

    pod: PodRef
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    agent: str = ""


@dataclass(frozen=True)
class OpenPort:
    """Lead a local port (0: the keeper's choice) to a port of the pod. Reply: PortReply."""

    pod: PodRef
    remote_port: int
    local_port: int = 0
    agent: str = ""


@dataclass(frozen=True)
class ClosePort:
    """Close a forward and forget it. Reply: Done."""

    pod_id: str
    remote_port: int


@dataclass(frozen=True)
class DropPod:
    """End the connection to a pod, its commands and its forwards, and forget it. Reply: Done."""

    pod_id: str


@dataclass(frozen=True)
class AskForwards:
    """Which forwards are open. Reply: ForwardsReply."""


@dataclass(frozen=True)
class AskStatus:
    """What the keeper does. Reply: StatusReply."""


@dataclass(frozen=True)
class Tend:
    """Tend to the rented pods, at once. `environment` is what this client reaches their providers with, keys included;
    it is kept in memory only. Reply: Done."""

    environment: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Stop:
    """End: cut the commands, close the forwards and forget them. Reply: Done, once clients can start another one."""


@dataclass(frozen=True)
class Done:
    """It is done, or there was nothing to do."""


@dataclass(frozen=True)
class PortReply:
    """The local port that leads there."""

    local_port: int


@dataclass(frozen=True)
class ForwardsReply:
    """Rows of pod id, local port, remote port."""

    rows: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class StatusReply:
    """`processes` and `forwards` are counts, `pods` the ids of pods with a connection object, times in seconds.

    `tends`: whether it has rented pods to tend.
    """

    pid: int
    version: str
    build: str
    up_s: float
    processes: int
    forwards: int
    pods: tuple[str, ...]
    tends: bool = False


Request = Start | OpenPort | ClosePort | DropPod | AskForwards | AskStatus | Tend | Stop
Reply = Done | PortReply | ForwardsReply | StatusReply
_SHAPES: dict[str, type[Any]] = {
    shape.__name__: shape
    for shape in (Start, OpenPort, ClosePort, DropPod, AskForwards, AskStatus, Tend, Stop, Done, PortReply,
                  ForwardsReply, StatusReply)
}  # fmt: skip


def pack(value: Request | Reply) -> bytes:
    """A request or a reply as a payload."""
    # `asdict` copies everything first, which takes longer than the rest.
    return json.dumps([type(value).__name__, vars(value)], default=vars).encode()


def unpack(payload: bytes) -> Request | Reply:
    """The request or reply in a payload. Raises NotTheProtocol."""
    try:
        name, fields = json.loads(payload)
        shape = _SHAPES[name]
        values: dict[str, Any] = {key: _tuples(value) for key, value in fields.items()}
        if isinstance(values.get("pod"), dict):
            values["pod"] = pod_ref(values["pod"])
        made: Request | Reply = shape(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotTheProtocol("no request or reply that is known") from error
    return made


def pod_ref(table: dict[str, Any]) -> PodRef:
    """A PodRef from its `asdict` after a trip through JSON. Raises TypeError or KeyError."""
    address = {key: _tuples(value) for key, value in table["address"].items()}
    return PodRef(str(table["name"]), str(table["id"]), SshAddress(**address))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def pack_status(status: int) -> bytes:
    """An exit status as a payload."""
    return _STATUS.pack(status)


def unpack_status(payload: bytes) -> int:
    """The exit status in a payload."""
    return int(_STATUS.unpack(payload)[0])


def send(connection: socket.socket, *frames: tuple[Kind, bytes], before: bytes = b"") -> None:
    """Send frames (and raw bytes `before` them) in one piece; blocks while the other side does not take them."""
    parts = [before]
    for kind, payload in frames:
        parts += [_HEADER.pack(kind, len(payload)), payload]
    sent = connection.sendmsg(parts)
    if sent < sum(map(len, parts)):  # a signal came in between, or the socket has a timeout
        connection.sendall(b"".join(parts)[sent:])


class Inbox:
    """What comes in on a blocking socket: one line first, then frames. Data frames are handed out as they arrive."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._buffer = b""
        self._kind = Kind.STDOUT
        self._left = 0

    def line(self, timeout_s: float) -> bytes | None:
        """The first line without its end, None when the other side closed before. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > HELLO_BYTES:
                raise NotTheProtocol("a hello without an end")
            if not self._fill(deadline):
                return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line

    def next(self, timeout_s: float | None = None) -> tuple[Kind, bytes] | None:
        """The next frame or piece of a data frame, None at the end. Raises TimeoutError, NotTheProtocol, OSError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (found := self._parse()) is None:
            if not self._fill(deadline):
                return None
        return found

    def _fill(self, deadline: float | None) -> bool:
        if deadline is not None and not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("nothing came in time")
        data = self._connection.recv(READ_BYTES)
        self._buffer = self._buffer + data if self._buffer else data
        return bool(data)

    def _parse(self) -> tuple[Kind, bytes] | None:
        while not self._left:  # more than once only after a data frame without data
            if len(self._buffer) < _HEADER.size:
                return None
            kind, length = _read_header(self._buffer)
            if kind not in _DATA:
                end = _HEADER.size + length
                if len(self._buffer) < end:
                    return None
                payload, self._buffer = self._buffer[_HEADER.size : end], self._buffer[end:]
                return kind, payload
            self._kind, self._left, self._buffer = kind, length, self._buffer[_HEADER.size :]
        if not self._buffer:
            return None
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        return self._kind, piece


def _read_header(buffer: bytes) -> tuple[Kind, int]:
    number, length = _HEADER.unpack_from(buffer)
    try:
        kind = Kind(number)
    except ValueError as error:
        raise NotTheProtocol(f"no frame is called {number}") from error
    if length > (DATA_BYTES if kind in _DATA else CONTROL_BYTES):
        raise NotTheProtocol(f"a frame of {length} bytes")
    return kind, length
