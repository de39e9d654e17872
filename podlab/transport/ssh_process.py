"""A command on the other side of an SSH channel, and the line that starts it there."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from podlab.errors import BadArgument, LinkLost
from podlab.quoting import shell_line
from podlab.transport.base import Process, Stream

CHUNK_BYTES = 256 * 1024
PACKET_BYTES = 32_000
"""What fits into one packet of the library's; longer pieces are only copied for nothing."""
LINE_LIMIT_BYTES = 120_000
"""A pod's shell gets the whole line as one argument, and Linux allows 128 KiB for one (MAX_ARG_STRLEN)."""
IN_FOLDER = 'case $1 in /*) ;; *) cd ;; esac && CDPATH= cd -- "$1" && shift && exec "$@"'
"""`cd` alone goes to the user's home, wherever the login started."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Channel(Protocol):
    """What is used of the SSH library's channel."""

    eof_received: int
    closed: bool
    exit_status: int
    status_event: threading.Event

    def recv_ready(self) -> bool: ...
    def recv(self, nbytes: int) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def recv_stderr(self, nbytes: int) -> bytes: ...
    def send(self, s: bytes) -> int: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


class Wake:
    """An event that only its reader clears. The SSH library clears an event when *one* of two streams is empty."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set
        self.wait = self._event.wait
        self.rest = self._event.clear

    def clear(self) -> None:
        """Not yet: the other stream may hold something."""


def command_line(argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None) -> bytes:
    """`argv` with `env` and `cwd` as one line for the login shell of the pod, whichever POSIX shell that is.

    The shell is replaced (`exec`), so there is one process to signal and its end is the one that is reported.
    """
    words = list(argv)
    shell_line(words)  # refuses what cannot travel before anything is wrapped around it
    if cwd is not None:
        words = ["sh", "-c", IN_FOLDER, "sh", cwd, *words]
    if env:
        if "=" in words[0]:
            words = ["sh", "-c", 'exec "$@"', "sh", *words]  # env would take it for a variable
        for name in env:
            if not _VARIABLE.fullmatch(name):
                raise BadArgument(f"{name!r} cannot be an environment variable.", hint="Letters, digits, underscores.")
        words = ["env", *(f"{name}={value}" for name, value in env.items()), *words]
    line = shell_line(words).encode("utf-8", "surrogateescape")
    if len(line) > LINE_LIMIT_BYTES:
        raise BadArgument(
            f"The command for {argv[0]!r} has {len(line)} bytes; a pod takes {LINE_LIMIT_BYTES}.",
            hint="Send what is long as standard input.",
        )
    # A name that starts with a dash would be an option of `exec`, and without the space one of the shell itself.
    return (b" " if words[0].startswith("-") else b"exec ") + line


class SshProcess(Process):
    """A running command. `closed_by_pod` tells a channel that the pod closed from one that died with its link."""

    def __init__(
        self, pod: str, channel: Channel, wake: Wake, closed_by_pod: Callable[[], bool], terminate: Callable[[], None]
    ) -> None:
        self._pod = pod
        self._channel = channel
        self._wake = wake
        self._closed_by_pod = closed_by_pod
        self._terminate = terminate
        self._let_go = False
        self._stdin_closed = False

    def read(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        channel = self._channel
        while True:
            self._wake.rest()
            # Looked at before the streams, so that whatever came before an end is there; and `closed` before
            # `closed_by_pod`, which is set first.
            cut = channel.closed
            ended = channel.eof_received or self._closed_by_pod()
            try:
                if channel.recv_ready() and (data := channel.recv(CHUNK_BYTES)):
                    return "stdout", data
                if channel.recv_stderr_ready() and (data := channel.recv_stderr(CHUNK_BYTES)):
                    return "stderr", data
            except OSError as error:  # it could not tell the pod to send more
                raise self._lost() from error
            if ended or self._let_go:
                return None
            if cut:
                raise self._lost()
            if not self._wake.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                raise TimeoutError("no output in time")

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                count = 0 if self._stdin_closed else self._channel.send(bytes(view[:PACKET_BYTES]))
            except OSError:
                count = 0  # the library's word for a closed channel
            if count == 0:
                if self._stdin_closed or self._let_go or self._closed_by_pod():
                    raise BrokenPipeError("the command takes no more input")
                raise self._lost()
            view = view[count:]

    def close_stdin(self) -> None:
        if not self._stdin_closed:
            self._stdin_closed = True
            try:
                self._channel.shutdown_write()
            except (OSError, EOFError):
                pass  # the link is gone, which the next read tells

    def wait(self, timeout_s: float | None = None) -> int:
        if not self._channel.status_event.wait(timeout_s):
            raise TimeoutError("not ended in time")
        if self._channel.exit_status < 0:
            raise self._lost()
        return self._channel.exit_status

    def close(self) -> None:
        """Lets the channel go. A command that still runs is sent TERM first: `tail -f` would stay on the pod until it
        next wrote something. OpenSSH 9.2 does that for every user but root, so nobody may rely on it."""
        if self._let_go:
            return
        self._let_go = True
        with contextlib.suppress(Exception):  # close never raises; a dying link takes everything on it with it
            if self._channel.exit_status < 0 and not self._channel.closed:
                self._terminate()
            self._channel.close()
        self._wake.set()

    def _lost(self) -> LinkLost:
        what = "was let go" if self._let_go else "was lost"
        return LinkLost(
            f"The connection to pod {self._pod!r} {what} while a command ran; how it ended is unknown.",
            pod=self._pod,
            hint="The next command connects again.",
        )
