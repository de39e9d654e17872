"""This computer as a pod: commands are child processes, ports are the ports they are."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from podlab.errors import BadArgument, PodlabError, Unreachable
from podlab.transport.base import Forward, Process, Stream, Transport

CHUNK_BYTES = 64 * 1024
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_HINTS: dict[int | None, str] = {
    errno.ENOEXEC: "A script needs a first line such as #!/bin/sh; a program must be one for this kind of machine.",
    errno.E2BIG: "The command line is too long: put what is long into a file, or into the command's standard input.",
    errno.ENAMETOOLONG: "That is too long for a program's name. Is it several words, or a script for sh -c?",
    None: "Remove the NUL character.",
}


class LocalTransport(Transport):
    """Runs commands as children in a session of their own, so a notebook's interrupt does not reach them."""

    def __init__(self, pod: str = "local") -> None:
        self.pod = pod

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | dict(env or {}),
                cwd=Path.home() / (cwd or ""),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            missing = cwd if cwd and not (Path.home() / cwd).is_dir() else argv[0]
            raise BadArgument(f"There is no {missing!r} on pod {self.pod!r}.", hint="Check the spelling.") from error
        except (OSError, ValueError) as error:
            raise self._refused(argv[0], error) from error
        return LocalProcess(child)

    def _refused(self, program: str, error: OSError | ValueError) -> PodlabError:
        """Why this computer did not start a program."""
        number = error.errno if isinstance(error, OSError) else None
        if number in _EXHAUSTED:
            return Unreachable(
                f"Pod {self.pod!r}: this computer can start nothing more now: {os.strerror(number)}.", pod=self.pod,
                hint="End some programs or notebooks, or raise the limit in the shell that starts Jupyter: see ulimit.",
            )  # fmt: skip
        reason = os.strerror(number) if number is not None else str(error)
        said = f"{program[:200]!r} cannot be started on pod {self.pod!r}: {reason}."
        return BadArgument(said, hint=_HINTS.get(number, "Is it a program, and may you run it?"))

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        if local_port not in (0, remote_port):
            raise BadArgument(
                f"Port {remote_port} of pod {self.pod!r} is a port of this computer already.",
                hint=f"Use 127.0.0.1:{remote_port} as it is.",
            )
        return LocalPort(remote_port)

    def close(self) -> None:
        """There is no connection to end."""


class LocalPort(Forward):
    """Nothing is forwarded: the port is on this computer."""

    def __init__(self, port: int) -> None:
        self.local_port = self.remote_port = port

    def close(self) -> None:
        """Nothing listens on our behalf."""


class LocalProcess(Process):
    """A child process whose two streams are read by a thread each into one bounded queue."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._pieces: queue.Queue[tuple[Stream, bytes] | None] = queue.Queue(maxsize=64)
        self._open_streams = 2
        self._closed = threading.Event()
        assert child.stdout is not None and child.stderr is not None
        for name, pipe in (("stdout", child.stdout), ("stderr", child.stderr)):
            threading.Thread(target=self._drain, args=(name, pipe), daemon=True).start()

    def _drain(self, stream: Stream, pipe: IO[bytes]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), CHUNK_BYTES):
                self._put(stream, data)
        self._put(stream, b"")

    def _put(self, stream: Stream, data: bytes) -> None:
        # A reader that has let go never empties the queue: look at `_closed` now and then instead of waiting for ever.
        while not self._closed.is_set():
            try:
                return self._pieces.put((stream, data), timeout=0.2)
            except queue.Full:
                continue

    def _wake_reader(self) -> None:
        """Let a reader in another thread end: what is queued is dropped, and None means that both streams ended."""
        while True:
            try:
                return self._pieces.put_nowait(None)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._pieces.get_nowait()

    def read(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        while self._open_streams:
            try:
                piece = self._pieces.get(timeout=timeout_s)
            except queue.Empty as error:
                raise TimeoutError("no output in time") from error
            if piece is None:
                self._open_streams = 0
                break
            stream, data = piece
            if data:
                return stream, data
            self._open_streams -= 1
        return None

    def write(self, data: bytes) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(data)
            self._child.stdin.flush()
        except ValueError as error:
            raise BrokenPipeError("standard input is closed") from error

    def close_stdin(self) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            pass  # it ended before it had read everything, which its status tells

    def wait(self, timeout_s: float | None = None) -> int:
        try:
            status = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError("not ended in time") from error
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._wake_reader()
        self.close_stdin()
        if self._child.poll() is None:
            try:
                os.killpg(self._child.pid, signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                pass  # it ended in between, which macOS tells by the second
            threading.Thread(target=self._child.wait, daemon=True).start()  # no zombie, and no waiting here
