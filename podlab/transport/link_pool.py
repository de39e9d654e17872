"""The connections to one pod: usually one with many channels, more where the pod's limits ask for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from podlab.transport.wire import Wire


class PooledLink(Protocol):
    """What the pool asks of a connection."""

    wire: Wire
    ended: threading.Event
    full: bool
    """The pod refused another session on it; cleared when one of them ends."""
    opening: int
    """Callers that were given the link and have not opened their channel yet; the pool's to count."""

    def is_active(self) -> bool: ...
    def channel_count(self) -> int: ...
    def probe(self) -> None: ...
    def close(self) -> None: ...


L = TypeVar("L", bound=PooledLink)


class LinkPool(Generic[L]):
    """Hands out links that take a new channel and connects when there is none. Each link is watched by a thread.

    A link that carried `drain_bytes` gets no new channels; it and links beyond the first are closed when they are
    empty. A dead link is dropped, and the next `take` connects again.
    """

    def __init__(self, name: str, connect: Callable[[], L], *, probe_s: float, drain_bytes: int) -> None:
        self._name = name
        self._connect = connect
        self._probe_s = probe_s
        self._drain_bytes = drain_bytes
        self._links: list[L] = []
        self._lock = threading.Lock()
        self._connecting = threading.Lock()

    def take(self, *, for_session: bool) -> tuple[L, bool]:
        """A link and whether it was made for this call. Give it back with `opened` once the channel is open or not."""
        if (link := self._usable(for_session)) is not None:
            return link, False
        with self._connecting:  # many threads that find no link make one, not many
            if (link := self._usable(for_session)) is not None:
                return link, False
            link = self._connect()
            link.opening += 1
            with self._lock:
                self._links.append(link)
            threading.Thread(target=self._watch, args=(link,), name=f"podlab-link-{self._name}", daemon=True).start()
            return link, True

    def opened(self, link: L) -> None:
        """The caller's channel is open, or never will be."""
        with self._lock:
            link.opening -= 1

    def close(self) -> None:
        """Close all links. A later `take` connects again."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.close()

    def _usable(self, for_session: bool) -> L | None:
        with self._lock:
            self._links = [link for link in self._links if link.is_active()]
            for link in self._links:
                if not self._is_drained(link) and not (for_session and link.full):
                    link.opening += 1
                    return link
        return None

    def _is_drained(self, link: L) -> bool:
        return link.wire.sent_bytes + link.wire.received_bytes >= self._drain_bytes

    def _watch(self, link: L) -> None:
        # The wire itself notices silence; this thread only makes sure that there is something to answer. It may be
        # stuck in `probe` while the link is, and is set free when the wire gives up.
        while not link.ended.wait(self._probe_s):
            if time.monotonic() - link.wire.heard_at >= self._probe_s * 0.9:
                link.probe()
            with self._lock:
                surplus = link not in self._links[:1] or self._is_drained(link)
                if surplus and not link.opening and not link.channel_count():
                    self._links = [other for other in self._links if other is not link]
                    break
        link.close()
