"""What failed, and when it is tried again: later each time, and never given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from podlab.errors import KeyRefused, RateLimited

LONGEST_PAUSE_S = 60.0
KEY_PAUSE_S = 60.0
"""A key that is refused is refused the next time, too, until a person has done something about it."""


@dataclass
class _Try:
    failures: int = 0
    again_at: float = 0.0


class Tries:
    """Failures by the name of what failed. `steady` is a clock that nobody sets."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._tries: dict[str, _Try] = {}

    def is_due(self, what: str) -> bool:
        """Whether it may be tried now."""
        known = self._tries.get(what)
        return known is None or self._steady() >= known.again_at

    def failed(self, what: str, error: Exception | None = None) -> None:
        """It failed once more: it is due again after a pause, as long as a provider asks for."""
        known = self._tries.setdefault(what, _Try())
        known.failures += 1
        # Not all of several computers at the same moment.
        pause_s = min(LONGEST_PAUSE_S, 2.0 ** min(known.failures, 6)) * random.uniform(0.7, 1.0)  # noqa: S311
        if isinstance(error, RateLimited):
            pause_s = max(pause_s, error.retry_after_s)
        elif isinstance(error, KeyRefused):
            pause_s = KEY_PAUSE_S
        known.again_at = self._steady() + pause_s

    def clear(self) -> None:
        """Whatever failed may be tried now: it is another key, or another way, by which it is tried."""
        self._tries.clear()

    def done(self, what: str) -> None:
        """It was done: what failed before counts no more."""
        self._tries.pop(what, None)
