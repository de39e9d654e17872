"""The way to a rented pod, whose address is another one after each start: where it does not answer, its provider is
asked where it is now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from podlab.errors import HostKeyChanged, Unreachable
from podlab.transport.base import Forward, Process, Transport
from podlab.types import Pod, SshAddress

T = TypeVar("T")
AGAIN_S = 10.0
"""Between two questions to the provider, whoever asks: commands that find nobody come in crowds."""


class Way(Protocol):
    """A transport that can be told another address."""

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        """As the contract of transports says."""
        ...

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        """As the contract of transports says."""
        ...

    def close(self) -> None:
        """As the contract of transports says."""
        ...

    def move(self, address: SshAddress) -> None:
        """The pod is there by now."""
        ...


class FollowingTransport(Transport):
    """A transport that asks `where` a pod is before it gives up; `connect` makes the way to an address."""

    def __init__(self, pod: Pod, connect: Callable[[Pod], Way], where: Callable[[Pod], Pod | None]) -> None:
        self.pod = pod.name
        self._at = pod
        self._connect = connect
        self._where = where
        self._way = connect(pod) if pod.address is not None else None
        self._lock = threading.Lock()
        self._asked_at: float | None = None

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        return self._reached(lambda way: way.start(argv, env=env, cwd=cwd))

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        return self._reached(lambda way: way.open_port(remote_port, local_port=local_port))

    def close(self) -> None:
        if self._way is not None:
            self._way.close()

    def moved(self, pod: Pod) -> None:
        """The pod is there now. What is under way goes on; forwards that are open lead there from now on."""
        self.pod = pod.name
        if pod.address is None or pod.address == self._at.address:
            return
        self._at = pod
        if self._way is None:
            self._way = self._connect(pod)
        else:
            self._way.move(pod.address)

    def _reached(self, ask: Callable[[Way], T]) -> T:
        """What `ask` says. Raises what it raises; a host key that changed with what may have come of it here."""
        try:
            return self._asked(ask)
        except HostKeyChanged as error:
            error.hint = (
                f"Its company may have started it anew, with new keys: podlab pod wait {self.pod} takes those that its "
                f"log there tells. If it refuses them, somebody may be in between: podlab pod terminate {self.pod}"
            )
            raise

    def _asked(self, ask: Callable[[Way], T]) -> T:
        """What `ask` says, again at the pod's new address where it has one: nothing was started at the old one."""
        if self._way is not None:
            try:
                return ask(self._way)
            except Unreachable:
                if not self._follow():
                    raise
        elif not self._follow():
            raise Unreachable(
                f"Pod {self.pod!r} has no address: it is stopped, or still on its way.", pod=self.pod,
                hint=f"See: podlab pod show {self.pod}. Start it: podlab pod start {self.pod}",
            )  # fmt: skip
        assert self._way is not None
        return ask(self._way)

    def _follow(self) -> bool:
        """Ask where the pod is; whether it is somewhere else than it was looked for."""
        with self._lock:
            now = time.monotonic()
            if self._asked_at is not None and now - self._asked_at < AGAIN_S:
                return False
            self._asked_at = now
            before = self._at.address
            found = self._where(self._at)
            if found is not None:
                self.moved(found)
            return self._at.address != before
