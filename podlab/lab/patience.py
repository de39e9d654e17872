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
ABANDON_GRACE_S = 3.0
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
    """Stop what an interrupted command had begun. Its request may still be on the way: the pod refuses it then."""
    yield Stage("stop", f"Interrupted: stopping {name}")
    try:
        result_of(side.stop(id, grace_s=ABANDON_GRACE_S, cancel=True))
    except PodlabError as error:
        yield Notice(f"{name} may still be running: {error.message}", "warning")
