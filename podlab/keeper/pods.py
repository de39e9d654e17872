"""The pods the keeper has a way to: one SSH transport each, made at its first use."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from podlab.transport.host_keys import HostKeys
from podlab.transport.kept_wire import PodRef
from podlab.transport.ssh import SshTransport
from podlab.transport.tunnel import PodStream


@dataclass
class _Way:
    """A transport, how many commands use it, and whether another one took its place."""

    ref: PodRef
    transport: SshTransport
    users: int = 0
    retired: bool = False


class KeptPods:
    """Ways to pods by pod id. Another address makes another way; the old one ends with its last command."""

    def __init__(self) -> None:
        self._ways: dict[str, _Way] = {}
        self._lock = threading.Lock()

    def ids(self) -> tuple[str, ...]:
        """The pods there is a way to, connected at the moment or not."""
        with self._lock:
            return tuple(self._ways)

    @contextlib.contextmanager
    def used(self, ref: PodRef) -> Iterator[SshTransport]:
        """The transport to a pod, kept as it is until the body ends even if the pod's address changes."""
        with self._lock:
            way = self._way(ref)
            way.users += 1
        try:
            yield way.transport
        finally:
            with self._lock:
                way.users -= 1
                over = way.retired and not way.users
            if over:
                way.transport.close()

    def stream(self, ref: PodRef, port: int) -> PodStream:
        """A connection to a port of the pod. Raises TransportError."""
        with self._lock:
            transport = self._way(ref).transport
        return transport.open_stream(port)

    def drop(self, pod_id: str) -> None:
        """Close the way to a pod, whatever uses it."""
        with self._lock:
            way = self._ways.pop(pod_id, None)
        if way is not None:
            way.transport.close()

    def _way(self, ref: PodRef) -> _Way:
        way = self._ways.get(ref.id)
        if way is not None and way.ref.address == ref.address:
            way.transport.pod = ref.name  # it may have been renamed
            return way
        new = _Way(ref, SshTransport(ref.name, ref.address, HostKeys(), pod_id=ref.id))
        self._ways[ref.id] = new
        if way is not None:
            way.retired = True
            if not way.users:
                threading.Thread(target=way.transport.close, name="podlab-retire", daemon=True).start()
        return new


def adopt_agent(path: str) -> None:
    """Use the SSH agent of the client that asks: the one this process was started with may be long gone."""
    if path and path != os.environ.get("SSH_AUTH_SOCK"):
        os.environ["SSH_AUTH_SOCK"] = path
