"""The first word to a rented pod that nobody has spoken to yet, or that has made new host keys at a start.

Its key counts when the pod's own start command told it in the provider's log, which is read over TLS; nobody is asked,
and what the log does not tell is not trusted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from podlab.errors import HostKeyChanged, HostKeyUnknown
from podlab.lab.launches import Launch
from podlab.lab.market import Market
from podlab.lab.start_command import heard
from podlab.renting import Rental
from podlab.transport.host_keys import HostKeys

LOG_LINES = 2000
AGAIN_S = 45.0
"""Between two looks into a pod's log: until its keys stand there, nothing else is to be had from it."""
T = TypeVar("T")


class Introduction:
    """Speaks to pods, and confirms their host keys where that is still to be done. Safe to use from several threads.

    `forget` drops what is open to a pod, by its id: it was made with the key of before.
    """

    def __init__(self, market: Market, steady: Callable[[], float], forget: Callable[[str], None]) -> None:
        self._market = market
        self._steady = steady
        self._forget = forget
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def speak(self, launch: Launch, rental: Rental, word: Callable[[], T]) -> T:
        """What `word` gives, said again once the pod's key is confirmed. Raises what it raises; HostKeyUnknown or
        HostKeyChanged where nothing vouches for the key."""
        try:
            return word()
        except HostKeyUnknown as unknown:
            if not self._is_vouched(launch, rental, unknown):
                raise
        except HostKeyChanged as changed:
            self._renew(launch, rental, word, changed)
        self._forget(launch.id)
        return word()

    def _renew(self, launch: Launch, rental: Rental, word: Callable[[], T], changed: HostKeyChanged) -> None:
        """Pin the key that a pod shows now, if its log tells it; else leave all as it was and raise `changed`."""
        pins = HostKeys()
        before = pins.pinned(launch.id)
        told = self._told(launch, rental)
        if changed.shown not in told:
            raise changed
        pins.forget(launch.id)
        self._forget(launch.id)
        try:
            word()
        except HostKeyUnknown as unknown:
            if unknown.fingerprint in told:
                pins.pin(launch.id, unknown.key_type, unknown.key_base64)
                return
        if before is not None:
            pins.pin(launch.id, before.type, before.base64)
        raise changed

    def _is_vouched(self, launch: Launch, rental: Rental, unknown: HostKeyUnknown) -> bool:
        if unknown.fingerprint not in self._told(launch, rental):
            return False
        HostKeys().pin(launch.id, unknown.key_type, unknown.key_base64)
        return True

    def _told(self, launch: Launch, rental: Rental) -> tuple[str, ...]:
        with self._lock:
            at = self._steady()
            if at - self._asked.get(launch.id, -AGAIN_S) < AGAIN_S:
                return ()
            self._asked[launch.id] = at
        # Only one that was stopped has lines of an earlier start, which count no more.
        since = rental.started_at if launch.was_stopped else None
        lines = self._market.provider(launch.provider).logs(rental.id, source="container", tail=LOG_LINES, since=since)
        return heard(lines, since=since).fingerprints
