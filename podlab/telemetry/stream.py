"""Samples of a pod at a steady rate, over links that may break."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from podlab.errors import LinkLost, PodlabError, Unreachable
from podlab.telemetry.lines import sample_from
from podlab.types import PodSample

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class Probe(Protocol):
    """A probe under way on a pod. `Stream` iterates over it in one thread and closes it from any, more than once."""

    def __iter__(self) -> Iterator[object]:
        """Its lines, decoded; blocks for the next. Ends when the probe has ended or was closed, raises LinkLost."""

    def close(self) -> None:
        """End it, here and on the pod."""

    def broken_off(self) -> PodlabError:
        """Why it ended although nobody closed it."""


class Stream:
    """Iterate over it for samples; `close` it from any thread, and the iteration ends.

    `begin` starts a probe and is called again when the link is lost, for up to `patience_s` without a sample; then the
    last LinkLost or Unreachable is raised. Every other error is raised at once. Samples of the time in between do not
    exist: `PodSample.at` shows the gap. `on_lost` hears of each loss.
    """

    def __init__(
        self, begin: Callable[[], Probe], pod: str, *, patience_s: float = 120.0,
        on_lost: Callable[[PodlabError], None] | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._begin = begin
        self._pod = pod
        self._patience_s = patience_s
        self._on_lost = on_lost
        self._clock = clock
        self._closed = threading.Event()
        self._probe: Probe | None = None

    def __iter__(self) -> Iterator[PodSample]:
        lost_since: float | None = None
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                for sample in self._samples():
                    lost_since, pause_s = None, FIRST_PAUSE_S
                    yield sample
            except (LinkLost, Unreachable) as error:
                if self._closed.is_set():
                    return
                now = self._clock()
                lost_since = now if lost_since is None else lost_since
                if now - lost_since >= self._patience_s:
                    raise
                if self._on_lost is not None:
                    self._on_lost(error)
                self._closed.wait(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _samples(self) -> Iterator[PodSample]:
        """Of one probe, until it is lost or we are closed."""
        probe = self._probe = self._begin()
        try:
            if self._closed.is_set():  # while it was started
                return
            for line in probe:
                yield sample_from(line, self._pod)
            if not self._closed.is_set():
                raise probe.broken_off()
        finally:
            probe.close()

    def close(self) -> None:
        """End the probe on the pod and the iteration here. Closing again does nothing."""
        self._closed.set()
        if self._probe is not None:
            self._probe.close()
