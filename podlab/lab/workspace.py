"""What one process of podlab holds while it works: settings in force, connections, what was last seen, conversations.

Nothing in it must outlast the process: kill -9 at any moment loses no more than an unsaved conversation.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podlab import settings
from podlab.errors import BadArgument, NotFound
from podlab.secrets import Secret
from podlab.store import Store
from podlab.types import Endpoint, Pod

if TYPE_CHECKING:
    from podlab.chat import Conversation
    from podlab.http import Http
    from podlab.lab.supervisor import PodSide
    from podlab.transport.base import Forward, Transport
    from podlab.transport.kept import KeptTransport
    from podlab.transport.ssh import SshTransport


@dataclass(frozen=True)
class Reached:
    """How this process talks to an endpoint. `base_url` ends in /v1, without a slash behind."""

    endpoint: Endpoint
    base_url: str
    key: Secret | None
    model: str
    """The name its server knows."""


class Workspace:
    """Safe with the threads of one process. Several processes meet in files and on the pods."""

    def __init__(self) -> None:
        self.store = Store()
        self.conversations: dict[str, Conversation] = {}
        """By endpoint name."""
        self.last_chat: str | None = None
        """The endpoint that was last spoken to here."""
        self._overrides: dict[str, Any] = {}
        self._reached: dict[str, Reached] = {}
        self._https: dict[str, Http] = {}
        self._homes: dict[str, str] = {}
        self._forwards: dict[tuple[str, int], Forward] = {}
        self._transports: dict[str, Transport] = {}
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    @classmethod
    def open(cls) -> Workspace:
        """A workspace on PODLAB_HOME, which is made if missing."""
        return cls()

    def value(self, name: str) -> Any:
        """A setting in force: set in this process, else environment, else file, else default."""
        return self.value_and_source(name)[0]

    def value_and_source(self, name: str) -> tuple[Any, str]:
        """A setting in force and where it comes from."""
        if name in self._overrides:
            return self._overrides[name], "flag"
        return settings.value(name)

    def override(self, name: str, value: Any) -> None:
        """Set a setting for this process only; None takes it back."""
        settings.setting(name)
        if value is None:
            self._overrides.pop(name, None)
        else:
            self._overrides[name] = settings.parse(name, str(value))

    def transport(self, pod: Pod) -> Transport:
        """The way to a pod, kept for the life of this process. Connects at its first use, not here."""
        with self._lock:
            known = self._transports.get(pod.id)
            if known is None:
                known = self._transports[pod.id] = self._new_transport(pod)
        if pod.rental_id is not None:
            self.moved(pod)
        return known

    def moved(self, pod: Pod) -> None:
        """A rented pod has another address now: what is open leads there from now on."""
        from podlab.lab.following import FollowingTransport

        with self._lock:
            known = self._transports.get(pod.id)
        if isinstance(known, FollowingTransport):
            known.moved(pod)

    def drop_transport(self, pod_id: str) -> None:
        """Close the way to a pod that is renamed, removed or pinned anew."""
        with self._lock:
            transport = self._transports.pop(pod_id, None)
            self._homes.pop(pod_id, None)
            for key in [key for key in self._forwards if key[0] == pod_id]:
                del self._forwards[key]
        for reached in list(self._reached.values()):
            self.forget_reached(reached.endpoint.id)  # cheap to find again, and not worth knowing which pod it was on
        if transport is not None:
            transport.close()

    def side(self, pod: Pod) -> PodSide:
        """The pod's own side of podlab."""
        from podlab.lab.supervisor import PodSide

        if pod.provider == "local":
            return PodSide.local(self.transport(pod), str(settings.home() / "pod"), log_cap_bytes=self._log_cap)
        return PodSide(self.transport(pod), log_cap_bytes=self._log_cap)

    def reached(self, name: str) -> Reached | None:
        """The way to an endpoint as it was last found here, or None."""
        return self._reached.get(name)

    def keep_reached(self, reached: Reached) -> None:
        """Keep the way to an endpoint for the next turn of a conversation; a client of an older way is closed."""
        name = reached.endpoint.name
        known = self._reached.get(name)
        if known is not None and (known.base_url, known.key) != (reached.base_url, reached.key):
            self.forget_reached(known.endpoint.id)
        self._reached[name] = reached

    def forget_reached(self, endpoint_id: str) -> None:
        """Look an endpoint up again at its next use: it was stopped, or moved."""
        for name, reached in list(self._reached.items()):
            if reached.endpoint.id == endpoint_id:
                del self._reached[name]
                if (http := self._https.pop(name, None)) is not None:
                    http.close()

    def http(self, reached: Reached) -> Http:
        """A client for an endpoint, its connection kept open between the turns of a conversation."""
        from podlab.http import Http

        name = reached.endpoint.name
        if name not in self._https:
            self._https[name] = Http(reached.base_url, key=reached.key)
        return self._https[name]

    def endpoint_key(self, pod: Pod, endpoint_id: str) -> Secret | None:
        """An endpoint's own key, read from its folder on the pod; None when it has none."""
        from podlab.transport import files

        if pod.id not in self._homes:
            self._homes[pod.id] = self.side(pod).hello().home
        path = f"{self._homes[pod.id]}/endpoints/{endpoint_id}/key"
        try:
            text = files.read_file(self.transport(pod), path, limit_bytes=1024).decode(errors="replace").strip()
        except NotFound:
            return None
        return Secret(text) if text else None

    def local_port(self, pod: Pod, remote_port: int, *, wished: int = 0) -> int:
        """The port of this computer that leads to a port of a pod, opened if it is not yet.

        Through the keeper it outlives this process, and asking again gives the same port.
        """
        return self._forward(pod, remote_port, wished).local_port

    def keeps_forwards(self, pod: Pod) -> bool:
        """Whether a keeper holds what is forwarded to a pod, so that it outlives this process."""
        return pod.provider != "local" and bool(self.value("keeper"))

    def forwards(self) -> list[tuple[str, int, int]]:
        """Open forwards as (pod id, local port, remote port)."""
        if self.value("keeper"):
            from podlab.transport.kept import forwards

            return forwards()
        with self._lock:
            held = list(self._forwards.items())
        return [(pod_id, forward.local_port, port) for (pod_id, port), forward in held if pod_id != "local"]

    def close_forward(self, pod: Pod, remote_port: int) -> bool:
        """Close a forward; False when there is none."""
        if not any(pod_id == pod.id and remote == remote_port for pod_id, _, remote in self.forwards()):
            return False
        forward = self._forward(pod, remote_port, 0)
        with self._lock:
            self._forwards.pop((pod.id, remote_port), None)
        forward.close()
        return True

    def close(self) -> None:
        """End this process's own connections, forwards and clients. The keeper's stay."""
        with self._lock:
            transports, self._transports = list(self._transports.values()), {}
            forwards, self._forwards = list(self._forwards.values()), {}
            https, self._https = list(self._https.values()), {}
            self._reached.clear()
        for http in https:
            http.close()
        for forward in forwards:
            forward.close()
        for transport in transports:
            transport.close()

    def brake(self) -> None:
        """Have this process tend what is rented while no keeper does: it rented a pod, or found one. Does not block."""
        from podlab.lab import kernel_brake

        kernel_brake.start(self)

    def _log_cap(self) -> int:
        return int(self.value("log_cap_bytes"))

    def _forward(self, pod: Pod, remote_port: int, wished: int) -> Forward:
        transport = self.transport(pod)
        if self.keeps_forwards(pod):
            return transport.open_port(remote_port, local_port=wished)  # the same one for all who ask
        key = (pod.id, remote_port)
        with self._opening:  # two threads that ask at the same time get one listener
            with self._lock:
                known = self._forwards.get(key)
            if known is None:
                known = transport.open_port(remote_port, local_port=wished)
                with self._lock:
                    self._forwards[key] = known
        return known

    def _new_transport(self, pod: Pod) -> Transport:
        if pod.provider == "local":
            from podlab.transport.local import LocalTransport

            return LocalTransport(pod.name)
        if pod.rental_id is not None:
            from podlab.lab.following import FollowingTransport

            return FollowingTransport(pod, self._way, self._where)
        return self._way(pod)

    def _way(self, pod: Pod) -> KeptTransport | SshTransport:
        if pod.address is None:
            raise BadArgument(f"Pod {pod.name!r} has no address.", hint=f"Add it again: podlab pod remove {pod.name}")
        if self.value("keeper"):
            from podlab.transport.kept import KeptTransport

            return KeptTransport(pod.name, pod.id, pod.address)
        from podlab.transport.host_keys import HostKeys
        from podlab.transport.ssh import SshTransport

        return SshTransport(pod.name, pod.address, HostKeys(), pod_id=pod.id)

    def _where(self, pod: Pod) -> Pod | None:
        """Where a rented pod is by now, None where it was."""
        from podlab.lab import rented
        from podlab.lab.market import Market

        return rented.refreshed(self, Market.of(self), pod)
