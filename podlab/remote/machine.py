"""What the pod's operating system tells: files, processes, ports, and what answers on them.

Standard library only, Python 3.8 or newer. It travels inside the programs that need it (supervisor, monitor) as a
module made from its text. Linux is where it is at home; on macOS what only /proc could tell is answered with None.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing costs more than a request has to spare
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

    Json = dict[str, Any]

HEALTH_DEADLINE_S = 2.0
FIRST_TOKEN_S = 120.0
"""The first answer of an engine may have kernels compiled for it."""
MARK, MARK_HOME = "PODLAB_ENDPOINT", "PODLAB_POD_HOME"
"""Variables in the environment of everything we start: whose process it is, and in which home that is recorded."""


class Fault(Exception):
    """An error the client is told: `kind` is for programs, the message for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# ------------------------------------------------------------------------------------------------ files


def private_folder(path: str) -> None:
    """Make `path`, or make sure that it is a real folder of ours that nobody else can enter."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise Fault("unsafe_home", f"{path} is not a folder of user {os.getuid()}")
    if stat.S_IMODE(info.st_mode) != 0o700:
        os.chmod(path, 0o700)


def open_regular(path: str) -> int | None:
    """A descriptor of a regular file, or None when there is none. Neither a link nor a pipe is opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return descriptor


def read_part(path: str, offset: int, limit: int) -> tuple[bytes, int]:
    """(at most `limit` bytes from `offset` on, size of the file); a negative offset counts from the end.

    A file that is not there is empty.
    """
    descriptor = open_regular(path)
    if descriptor is None:
        return b"", 0
    try:
        size = os.fstat(descriptor).st_size
        start = max(0, size + offset) if offset < 0 else offset
        data = b""
        while len(data) < limit and (part := os.pread(descriptor, limit - len(data), start + len(data))):
            data += part
        return data, max(size, start + len(data)) if data else size
    finally:
        os.close(descriptor)


def read_json(path: str) -> Json | None:
    """The object in a file, or None when there is no file. Raises ValueError or OSError for anything else."""
    descriptor = open_regular(path)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        value = json.loads(file.read(2**22).decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("no object in it")
    return value


def write_file(path: str, data: bytes) -> None:
    """Put `data` at `path` (0600): afterwards the old content or the new is there, whatever happens.

    The folder is not synced: after a power cut nothing that a record speaks of runs any more, so an old one will do.
    """
    part = f"{path}.{os.getpid()}.{time.monotonic_ns()}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except BaseException:
        os.unlink(part)  # a full disk must not be filled with parts
        raise


def write_json(path: str, value: Json) -> None:
    """Put an object at `path`, as `write_file` does."""
    write_file(path, json.dumps(value).encode())


def first_line(path: str) -> str:
    """The first line of a file of the system, "" when it cannot be read."""
    try:
        with open(path, errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------ processes


def command_output(*argv: str) -> str:
    """What a command of the system prints."""
    import subprocess

    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode()


def boot_id() -> str:
    """Changes when the machine is started anew, and also when only its container is (the kernel's id does not)."""
    kernel = first_line("/proc/sys/kernel/random/boot_id")
    if not kernel:
        return re.sub(r"\W+", "-", command_output("sysctl", "-n", "kern.boottime").strip())[:80] or "unknown"
    init = one_process(1)
    return f"{kernel}.{init.start if init else 0}"


class Process:
    """One row of the process table. `start` is its start time, which tells it from a later user of its pid."""

    __slots__ = ("pgid", "pid", "ppid", "sid", "start", "zombie")

    def __init__(self, pid: int, ppid: int, pgid: int, sid: int, start: str, zombie: bool) -> None:
        self.pid, self.ppid, self.pgid, self.sid, self.start, self.zombie = pid, ppid, pgid, sid, start, zombie


def has_proc() -> bool:
    """Whether this is a Linux whose process table we can read."""
    return os.path.exists("/proc/self/stat")


def one_process(pid: int) -> Process | None:
    """The process `pid`, or None. Reads one file on Linux."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        if has_proc():
            return None
        return {process.pid: process for process in processes_of_ps()}.get(pid)
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything, spaces and brackets too
    state, ppid, pgid, sid = fields[0], int(fields[1]), int(fields[2]), int(fields[3])
    return Process(pid, ppid, pgid, sid, fields[19].decode(), state in b"ZXx")


def processes_of_ps() -> Iterator[Process]:
    """The table where there is no /proc; a session is then taken to be its group."""
    for line in command_output("ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart=").splitlines():
        pid, ppid, pgid, state, start = line.split(None, 4)
        yield Process(int(pid), int(ppid), int(pgid), int(pgid), start.strip(), state.startswith("Z"))


def is_same(pid: object, start: object) -> bool:
    """Whether process `pid` is the one that was started at `start`, and not a zombie."""
    process = one_process(pid) if isinstance(pid, int) and pid > 0 else None
    return process is not None and process.start == start and not process.zombie


class Table:
    """One look at all processes but ourselves. `marks`: pid -> whose mark it carries, of those in this home."""

    def __init__(self, home: str) -> None:
        self.rows: dict[int, Process] = {}
        self.marks: dict[int, str] = {}
        self._children: dict[int, list[int]] = {}
        mark, of_home = f"\0{MARK}=".encode(), b"\0" + os.fsencode(f"{MARK_HOME}={home}") + b"\0"
        proc = has_proc()
        numbers = (int(name) for name in os.listdir("/proc") if name.isdigit()) if proc else ()
        for row in map(one_process, numbers) if proc else processes_of_ps():
            if row is None or row.zombie or row.pid == os.getpid():
                continue
            self.rows[row.pid] = row
            self._children.setdefault(row.ppid, []).append(row.pid)
            if proc:
                self._read_mark(row.pid, mark, of_home)

    def _read_mark(self, pid: int, mark: bytes, of_home: bytes) -> None:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = b"\0" + file.read() + b"\0"
        except OSError:
            return  # somebody else's process, or just gone
        at = environment.find(mark)
        if at >= 0 and of_home in environment:
            begin = at + len(mark)
            self.marks[pid] = environment[begin : environment.index(b"\0", begin)].decode("ascii", "replace")

    def is_same(self, pid: object, start: object) -> bool:
        """Whether `pid` was, when we looked, the process that was started at `start`."""
        return isinstance(pid, int) and pid in self.rows and self.rows[pid].start == start

    def of(self, id: str, root: int | None = None) -> set[int]:
        """Everything that belongs to `id`: what carries its mark; the session and group of `root`, if that pid is
        known to be its own still; and their descendants, unless those carry another mark."""
        found = {pid for pid, mark in self.marks.items() if mark == id}
        if root is not None:
            found |= {pid for pid, row in self.rows.items() if root in (pid, row.sid, row.pgid)}
        queue = list(found)
        while queue:
            for child in self._children.get(queue.pop(), ()):
                if child not in found and self.marks.get(child, id) == id:
                    found.add(child)
                    queue.append(child)
        return found


# ------------------------------------------------------------------------------------------------ ports


def listeners(port: int) -> set[str] | None:
    """Inodes of the sockets that answer on 127.0.0.1:port, or None where that cannot be known."""
    # What listens stands first in Linux's table. The rest, which takes long, is read only when the port is not there:
    # where nothing listens, or where another kernel has another order.
    return _listeners(port, whole=False) or _listeners(port, whole=True)


def _listeners(port: int, whole: bool) -> set[str] | None:
    loopback = f"{int.from_bytes(bytes((127, 0, 0, 1)), sys.byteorder):08X}"
    mapped = "0" * 16 + f"{int.from_bytes(bytes((0, 0, 255, 255)), sys.byteorder):08X}"  # IPv4 in an IPv6 socket
    exact: set[str] = set()
    wildcard: set[str] = set()
    known = False
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = list(listening(path, whole)) if not exact else []
        except OSError:
            continue
        known = True
        for where, inode in rows:
            address, _, hex_port = where.partition(":")
            if int(hex_port, 16) == port:
                if address in (loopback, mapped + loopback):
                    exact.add(inode)
                elif not address.strip("0") or address == mapped + "0" * 8:
                    wildcard.add(inode)
    return (exact or wildcard) if known else None  # a socket bound to the very address goes before one bound to all


def listening(path: str, whole: bool) -> Iterator[tuple[str, str]]:
    """(hexadecimal address:port, inode) of the rows that listen; not `whole`: until the first that does not.

    Read in small parts: the kernel makes no more of the table than it is asked for.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pending = b""
        while part := os.read(descriptor, 65536 if whole else 1024):
            *rows, pending = (pending + part).split(b"\n")
            for row in rows:
                fields = row.decode("ascii", "replace").split()
                if fields[3] == "0A":
                    yield fields[1], fields[9]
                elif fields[3] not in ("st", "03") and not whole:  # the head line; what old kernels list in between
                    return
    finally:
        os.close(descriptor)


def sockets_of(pid: int) -> set[str] | None:
    """Inodes of the sockets a process holds, or None where we may not look."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except FileNotFoundError:
                continue  # closed in between
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except FileNotFoundError:
        return found  # it ended
    except OSError:
        return None
    return found


def owner_text(inodes: set[str] | None) -> str:
    """Who holds one of these sockets: "name (pid 7)", or "" when nobody we may look at does."""
    for name in os.listdir("/proc") if inodes else ():
        if name.isdigit() and inodes and inodes & (sockets_of(int(name)) or set()):
            return f"{first_line(f'/proc/{name}/comm') or 'a process'} (pid {name})"
    return ""


def is_ours(inodes: set[str] | None, pids: Collection[int]) -> bool | None:
    """Whether `pids` hold all these listening sockets; None when there is none, or it cannot be known."""
    if not inodes:
        return None
    unseen, left = False, set(inodes)
    for pid in pids:
        held = sockets_of(pid)
        unseen = unseen or held is None
        left -= held or set()
        if not left:
            return True
    return None if unseen else False


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_port(wished: int, reserved: Mapping[int, str]) -> int:
    """`wished` if it is free, or a free one below the range the kernel hands out to outgoing connections, where
    nobody takes it by accident before the engine binds it. `reserved`: port -> name of the endpoint it belongs to."""
    if wished:
        if wished in reserved:
            raise Fault("port_busy", f"port {wished} belongs to endpoint {reserved[wished]}")
        if not port_is_free(wished):
            owner = owner_text(listeners(wished))
            raise Fault("port_busy", f"port {wished} is taken{' by ' + owner if owner else ''}")
        return wished
    import random

    for port in random.sample(range(20000, 32000), 200):
        if port not in reserved and port_is_free(port):
            return port
    raise Fault("port_busy", "200 ports were tried and none is free")


# ------------------------------------------------------------------------------------------------ health


def answers(port: int) -> bool:
    """Whether somebody listens on 127.0.0.1:port. Nothing is said to them."""
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def http_ask(
    port: int, path: str, key: str, body: str = "", deadline_s: float = HEALTH_DEADLINE_S
) -> tuple[int, bytes]:
    """(status, body up to 256 KiB) of a GET on 127.0.0.1, or of a POST of JSON. Raises OSError or ValueError.

    By hand, because importing http.client takes longer than the answer.
    """
    import socket

    deadline = time.monotonic() + deadline_s
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {key}\r\n" if key else ""
    head += f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n" if body else ""
    request = f"{head}\r\n{body}"
    with socket.create_connection(("127.0.0.1", port), HEALTH_DEADLINE_S) as connection:
        connection.sendall(request.encode())
        data = said = b""
        while len(data) < 2**18:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            part = connection.recv(65536)
            data += part
            fields, complete, said = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", fields)
            if not part or (complete and length and len(said) >= int(length.group(1))):
                break
    status = re.match(rb"HTTP/1\.\d (\d{3})", data)
    if not status:
        raise ValueError("no HTTP answer")
    return int(status.group(1)), said


def gives_a_token(port: int, health: Mapping[str, str], key: str) -> bool:
    """Whether it answers a prompt with one token, which `/health` does not tell.

    A server that refuses the question as such (4xx: a model that does not write) is taken to be able to answer others.
    """
    question = json.dumps({"model": health["served_name"], "prompt": "Hello", "max_tokens": 1})
    try:
        status, _ = http_ask(port, health["probe"], key, question, FIRST_TOKEN_S)
    except (OSError, ValueError):
        return False
    return status < 500


def health_of(port: int, health: Mapping[str, str], key: str) -> Json:
    """{"status", "error", "models"} of what answers on the port; every way not to answer is in `error`."""
    facts: Json = {"status": None, "error": "", "models": []}
    try:
        facts["status"], _ = http_ask(port, health["path"], "")
        if facts["status"] == 200:
            status, body = http_ask(port, health["models_path"], key)
            if status == 200:
                listed = json.loads(body.decode("utf-8", "replace"))["data"]
                facts["models"] = [str(model["id"])[:500] for model in listed[:100]]
            else:
                facts["error"] = f"{health['models_path']} answers {status}"
    except OSError as error:
        facts["error"] = "no answer in time" if "timed out" in str(error) else str(error)[:300]
    except (ValueError, KeyError, TypeError) as error:
        facts["error"] = f"not an answer of a model server: {str(error)[:200]}"
    return facts


def ask_port(port: int, health: Mapping[str, str], key: Callable[[], str], pids: Collection[int]) -> Json:
    """{"health", "socket_ours", "socket_owner", "answers_as_ready"} of an endpoint whose processes are `pids`.

    A port that a stranger listens on is not asked: the key must not be shown to it.
    """
    inodes = listeners(port)
    ours = is_ours(inodes, pids)
    owner = owner_text(inodes) if ours is False else ""
    if inodes is not None and not inodes:
        answer: Json = {"status": None, "error": f"nothing listens on port {port} yet", "models": []}
    elif ours is False:
        answer = {"status": None, "error": f"port {port} belongs to {owner or 'another process'}", "models": []}
    else:
        answer = health_of(port, health, key())
    ready = answer["status"] == 200 and health["served_name"] in answer["models"]
    return {"health": answer, "socket_ours": ours, "socket_owner": owner, "answers_as_ready": ready}
