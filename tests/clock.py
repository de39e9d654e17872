"""A clock that a test turns."""

from __future__ import annotations


class Clock:
    """Time that stands until it is turned."""

    def __init__(self, at: float = 1_780_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def turn(self, seconds: float) -> None:
        self.at += seconds
