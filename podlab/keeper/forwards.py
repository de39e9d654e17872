"""Forwards with local ports that stay the same: across connections, keepers, and usually across months.

What is open is in `keeper.json` before anybody is told of it, so after a crash the next keeper opens it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from podlab.durable import replace_file
from podlab.errors import BadArgument, StateDamaged
from podlab.transport.kept_place import KEPT_S
from podlab.transport.kept_wire import PodRef, pod_ref
from podlab.transport.tunnel import PodStream, PortForward

SAVE_S = 600.0
FIRST_PORT, PORTS, TRIES = 20_000, 12_000, 16
"""Below the ports that systems give to outgoing connections (Linux from 32768, macOS from 49152)."""
FORMAT = 1

_log = logging.getLogger(__name__)


@dataclass
class _Open:
    """A forward. `used_at` is seconds since the epoch; `streams` are its connections that are open."""

    ref: PodRef
    remote_port: int
    used_at: float
    listener: PortForward | None = None
    streams: weakref.WeakSet[PodStream] = field(default_factory=weakref.WeakSet)

    def counts(self, now: float) -> bool:
        """Whether it is worth keeping. A clock that was set back makes nothing older."""
        return bool(len(self.streams)) or now - self.used_at < KEPT_S


class Forwards:
    """The open forwards by pod and remote port. `open_stream` connects to a port of a pod."""

    def __init__(
        self, path: Path, open_stream: Callable[[PodRef, int], PodStream], *, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._open_stream = open_stream
        self._now = now
        self._open: dict[tuple[str, int], _Open] = {}
        self._retired: list[PortForward] = []
        self._lock = threading.Lock()
        self._saved_at = now()

    def restore(self) -> None:
        """Open what an earlier keeper had open, on the same local ports; forget what is too old or finds its port
        taken, which the next request learns by getting another port."""
        with self._lock:
            for ref, remote_port, local_port, used_at in self._stored():
                row = _Open(ref, remote_port, used_at)
                if row.counts(self._now()):
                    self._listen_again(row, local_port)
            self._save()

    def open(self, ref: PodRef, remote_port: int, local_port: int) -> int:
        """The local port that leads there: the one that does already, else `local_port`, else one of our choice."""
        with self._lock:
            known = self._open.get((ref.id, remote_port))
            if known is not None and known.listener is not None:
                known.used_at = self._now()
                if known.ref != ref:
                    known.ref = ref
                    self._save()
                return known.listener.local_port
            row = _Open(ref, remote_port, self._now())
            port = self._listen(row, local_port) if local_port else self._listen_somewhere(row)
            try:
                self._save()
            except (OSError, StateDamaged):
                self._close(self._open.pop((ref.id, remote_port)))
                raise
            return port

    def repoint(self, ref: PodRef) -> None:
        """Lead the open forwards of a pod to where it is by now: a rented one has another address after each start."""
        with self._lock:
            rows = [row for row in self._open.values() if row.ref.id == ref.id and row.ref.address != ref.address]
            for row in rows:
                row.ref = ref
            try:
                if rows:
                    self._save()
            except (OSError, StateDamaged) as error:  # they lead there all the same
                _log.warning("%s cannot be written: %s", self._path, error)

    def close(self, pod_id: str, remote_port: int) -> None:
        """Close one and forget it; nothing happens when there is none."""
        self._forget(lambda row: row.ref.id == pod_id and row.remote_port == remote_port)

    def close_pod(self, pod_id: str) -> None:
        """Close all of a pod and forget them."""
        self._forget(lambda row: row.ref.id == pod_id)

    def close_all(self, *, forget: bool) -> None:
        """Close all; unless forgotten, the next keeper opens them again."""
        if forget:
            self._forget(lambda row: True)
            return
        self.hand_over()
        self.cut()

    def hand_over(self) -> None:
        """Stop listening, so that the next keeper can; connections that are open go on until `cut`."""
        with self._lock:
            rows = list(self._open.values())
            self._save()
            self._open.clear()
        for row in rows:
            if row.listener is not None:
                row.listener.retire()
                self._retired.append(row.listener)

    def is_carrying(self) -> bool:
        """Whether a connection goes on through a forward that was handed over."""
        return any(listener.connection_count() for listener in self._retired)

    def cut(self) -> None:
        """Cut what goes on through forwards that were handed over: a reset, no end."""
        for listener in self._retired:
            listener.close()

    def rows(self) -> tuple[tuple[str, int, int], ...]:
        """Pod id, local port, remote port of each."""
        with self._lock:
            return tuple(
                (row.ref.id, row.listener.local_port, row.remote_port)
                for row in self._open.values()
                if row.listener is not None
            )

    def tend(self) -> bool:
        """Close and forget what nobody has used for KEPT_S; whether anything is left. To be called now and then: it
        also writes down which are in use."""
        now = self._now()
        with self._lock:
            for row in self._open.values():
                if len(row.streams):
                    row.used_at = now
            old = [key for key, row in self._open.items() if not row.counts(now)]
            closing = [self._open.pop(key) for key in old]
            is_any_left = bool(self._open)
            try:
                if closing or (self._open and not 0 <= now - self._saved_at < SAVE_S):
                    self._save()
            finally:
                for row in closing:
                    self._close(row)
        return is_any_left

    def _listen(self, row: _Open, local_port: int) -> int:
        def connect(port: int) -> PodStream:
            row.used_at = self._now()
            stream = self._open_stream(row.ref, port)
            row.streams.add(stream)
            return stream

        row.listener = PortForward(row.ref.name, connect, row.remote_port, local_port)
        self._open[row.ref.id, row.remote_port] = row
        return row.listener.local_port

    def _listen_again(self, row: _Open, local_port: int) -> None:
        for attempt in range(TRIES):
            try:
                self._listen(row, local_port)
                return
            except BadArgument as error:
                if attempt == TRIES - 1:
                    _log.warning("forgetting the forward to port %d of %s: %s", row.remote_port, row.ref.name, error)
                else:
                    time.sleep(0.05)  # the keeper before this one may be closing it right now

    def _listen_somewhere(self, row: _Open) -> int:
        for port in _candidates(row.ref.id, row.remote_port):
            try:
                return self._listen(row, port)
            except BadArgument:
                continue  # taken
        return self._listen(row, 0)

    def _forget(self, which: Callable[[_Open], bool]) -> None:
        with self._lock:
            rows = [row for row in self._open.values() if which(row)]
            for row in rows:
                del self._open[row.ref.id, row.remote_port]
            if rows:
                self._save()
        for row in rows:
            self._close(row)

    def _close(self, row: _Open) -> None:
        if row.listener is not None:
            row.listener.close()

    def _save(self) -> None:
        # Names and addresses only; no secret is among them.
        forwards = [
            {"pod": asdict(row.ref), "remote_port": row.remote_port, "local_port": row.listener.local_port,
             "used_at": row.used_at}
            for row in self._open.values()
            if row.listener is not None
        ]  # fmt: skip
        if forwards:
            replace_file(self._path, json.dumps({"format": FORMAT, "forwards": forwards}).encode())
        else:
            self._path.unlink(missing_ok=True)
        self._saved_at = self._now()

    def _stored(self) -> list[tuple[PodRef, int, int, float]]:
        try:
            table: Any = json.loads(self._path.read_bytes())
            if table["format"] != FORMAT:
                raise ValueError(f"format {table['format']}")
            return [
                (pod_ref(row["pod"]), int(row["remote_port"]), int(row["local_port"]), float(row["used_at"]))
                for row in table["forwards"]
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s cannot be read (%s); forwards open when they are asked for", self._path, error)
            return []


def _candidates(pod_id: str, remote_port: int) -> Iterator[int]:
    # From the pod and its port, so that a forward which was forgotten comes back where it was.
    digest = hashlib.sha256(f"{pod_id}:{remote_port}".encode()).digest()
    first = int.from_bytes(digest[:4], "big")
    return (FIRST_PORT + (first + 7 * step) % PORTS for step in range(TRIES))
