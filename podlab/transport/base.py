"""The contract between podlab and a pod: how a command, a file and a port get there.

Three implementations (`local`, `ssh`, `kept`) pass one conformance suite, tests/transport/test_conformance.py. Commands
are argv lists; nothing is pasted into a shell string. Callers are threads and may block; every call has a deadline
or can be ended from another thread with `Process.close`.

What an implementation must keep:

- `start` either started the command once or raised before it could have been started. It never starts it twice.
- After the link is lost every pending and later call on a Process raises LinkLost; the next `start` on the
  Transport connects again by itself.
- `close` on anything that is already closed does nothing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from podlab.errors import BadArgument, CommandFailed, CommandTimeout

Stream = Literal["stdout", "stderr"]
RUN_TIMEOUT_S = 60.0
OUTPUT_LIMIT_BYTES = 64 * 2**20
"""What `run` keeps of each stream at most; a pod's output is untrusted and may have no end."""


@dataclass(frozen=True)
class Completed:
    """A command that has ended. `status` is its exit status, 128 + N when signal N ended it."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")


class Process(ABC):
    """A command under way. Read it to its end, then `wait`. One reader and one writer at a time."""

    @abstractmethod
    def read(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        """The next piece of output, or None once both streams have ended.

        Raises TimeoutError when nothing came within `timeout_s` (the process goes on), LinkLost when the link died.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send `data` to standard input; blocks while the pod does not take it.

        Raises BrokenPipeError when the command has closed its input or ended, LinkLost when the link died.
        """

    @abstractmethod
    def close_stdin(self) -> None:
        """End standard input."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status; 128 + N when signal N ended it. Raises TimeoutError, or LinkLost when it is unknown."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it from any thread: a local command gets TERM, a remote one loses its channel. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Forward(ABC):
    """A port of this computer that leads to a port of the pod."""

    local_port: int
    remote_port: int

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Connections that are open are cut."""


class Transport(ABC):
    """The way to one pod. Safe to use from several threads."""

    pod: str
    """The pod's name, for messages."""

    @abstractmethod
    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        """Start a command with `env` added to the environment; a relative `cwd` is relative to the user's home.

        `env` values pass through the command line of the pod and are no place for secrets: those go by stdin.
        Raises Unreachable, AuthenticationFailed, HostKeyUnknown, HostKeyChanged (nothing was started), or LinkLost
        (whether it was started is unknown).
        """

    @abstractmethod
    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        """Lead 127.0.0.1:`local_port` of this computer (0: any free one) to 127.0.0.1:`remote_port` of the pod."""

    @abstractmethod
    def close(self) -> None:
        """End connections. Processes that run on the pod by themselves are not touched."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float = RUN_TIMEOUT_S,
        check: bool = True,
    ) -> Completed:
        """Run a command to its end.

        Raises CommandFailed unless its status is 0 (with `check`), CommandTimeout after `timeout_s`; both carry what
        it had said. Output beyond 64 MiB a stream is an error too: nothing we run says that much.
        """
        deadline = time.monotonic() + timeout_s
        said: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        command = tuple(argv)
        with self.start(command, env=env, cwd=cwd) as process:
            try:
                try:
                    if stdin:
                        process.write(stdin)
                    process.close_stdin()
                except BrokenPipeError:
                    pass  # it did not want its input; its status tells whether that was wrong
                while (piece := process.read(max(0.0, deadline - time.monotonic()))) is not None:
                    stream, data = piece
                    said[stream] += data
                    if len(said[stream]) > OUTPUT_LIMIT_BYTES:
                        raise BadArgument(f"{command[0]} on pod {self.pod!r} says more than 64 MiB.")
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutError as error:
                stdout, stderr = bytes(said["stdout"]), bytes(said["stderr"])
                raise CommandTimeout(self.pod, command, timeout_s, stdout, stderr) from error
        completed = Completed(command, status, bytes(said["stdout"]), bytes(said["stderr"]))
        if check and status != 0:
            raise CommandFailed(self.pod, command, status, completed.stdout, completed.stderr)
        return completed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
