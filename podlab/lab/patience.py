"""Requests to a pod over a link that may break, and begun work that nobody wants any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from podlab.errors import LinkLost, PodlabError, Unreachable
from podlab.events import Notice, Stage, Work
from podlab.lab.supervisor import PodSide, result_of

PATIENCE_S = 90.0
"""How long a pod that had answered may be silent before what waits for it gives up."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
ABANDON_GRACE_S, URGENT_GRACE_S = 3.0, 0.2
Y = TypeVar("Y")
T = TypeVar("T")


class Patience:
    """How long to go on trying after a link broke. A first contact deserves none: use it once a pod has answered."""

    def __init__(self) -> None:
        self.heard()

    def heard(self) -> None:
        """The pod said something: patience is whole again."""
        self._lost_at: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def wait(self, error: PodlabError) -> None:
        """Pause before the next try, each time longer; raises `error` when patience is over."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if now - self._lost_at >= PATIENCE_S:
            raise error
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


def repeated(request: Callable[[], T]) -> T:
    """Repeat a request that is idempotent while the pod cannot be reached. Raises the last LinkLost or Unreachable."""
    patience = Patience()
    while True:
        try:
            return request()
        except (LinkLost, Unreachable) as error:
            patience.wait(error)


def persistent(begin: Callable[[], Generator[Y, None, T]]) -> Generator[Y, None, T]:
    """The same for a request that reports as it goes: begun again after a loss, to its end."""
    patience = Patience()
    while True:
        work = begin()
        try:
            while True:
                try:
                    item = next(work)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # untyped at this seam
                patience.heard()
                yield item
        except (LinkLost, Unreachable) as error:
            patience.wait(error)
        finally:
            work.close()


def abandon(side: PodSide, id: str, name: str) -> Work[None]:
    """Stop what an interrupted command had begun. Its request may still be on the way: the pod refuses it then.

    Whoever presses Ctrl-C twice means the same by it, and more urgently: the request that was cut short is sent again,
    with less patience for what runs. Interrupted once more, it says that something may be left.
    """
    for grace_s in (ABANDON_GRACE_S, URGENT_GRACE_S):
        try:
            if grace_s == ABANDON_GRACE_S:
                yield Stage("stop", f"Interrupted: stopping {name}")
            result_of(side.stop(id, grace_s=grace_s, cancel=True))
            return
        except PodlabError as error:
            yield Notice(f"{name} may still be running: {error.message}", "warning")
            return
        except KeyboardInterrupt:
            if grace_s == URGENT_GRACE_S:
                yield Notice(f"{name} may still be running: its end was not waited for.", "warning")
                raise
