"""One JSON object that came from a pod: untrusted, read field by field, each checked for its kind and its size."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar, cast

from podlab.errors import SupervisorError

TEXT_LIMIT = 4096
"""Characters of a text unless its reader says otherwise."""
T = TypeVar("T")


class Wire:
    """One JSON object from the pod; each method reads one field or raises SupervisorError naming it."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise SupervisorError(f"The pod's side sent {_shown(value)} where {what} was due.")
        self._fields = cast("dict[str, object]", value)
        self._what = what

    def _wrong(self, key: str) -> SupervisorError:
        return SupervisorError(f"The pod's side sent {key} = {_shown(self._fields.get(key))} in {self._what}.")

    def has(self, key: str) -> bool:
        return self._fields.get(key) is not None

    def any(self, key: str) -> object:
        return self._fields.get(key)

    def text(self, key: str, limit: int = TEXT_LIMIT) -> str:
        value = self._fields.get(key, "")
        if not isinstance(value, str) or len(value) > limit:
            raise self._wrong(key)
        return value

    def number(self, key: str) -> float:
        value = self._fields.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**63:
            raise self._wrong(key)
        return float(value)

    def whole(self, key: str) -> int:
        value = self._fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not abs(value) < 2**63:
            raise self._wrong(key)
        return value

    def flag(self, key: str) -> bool:
        value = self._fields.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key)
        return value

    def maybe(self, key: str, read: Callable[[str], T]) -> T | None:
        return read(key) if self.has(key) else None

    def texts(self, key: str, limit: int = TEXT_LIMIT, count: int = 10_000) -> tuple[str, ...]:
        values = self._fields.get(key, [])
        if not isinstance(values, list) or len(values) > count:
            raise self._wrong(key)
        if not all(isinstance(value, str) and len(value) <= limit for value in values):
            raise self._wrong(key)
        return tuple(values)

    def wholes(self, key: str) -> tuple[int, ...]:
        values = self._fields.get(key, [])
        if not isinstance(values, list) or len(values) > 100_000:
            raise self._wrong(key)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise self._wrong(key)
        return tuple(values)

    def part(self, key: str) -> Wire:
        return Wire(self._fields.get(key), f"{key} of {self._what}")

    def parts(self, key: str, count: int) -> tuple[Wire, ...]:
        """The objects of a list, `count` at most."""
        values = self._fields.get(key, [])
        if not isinstance(values, list) or len(values) > count:
            raise self._wrong(key)
        return tuple(Wire(value, f"{key} of {self._what}") for value in values)

    def mapping(self, key: str) -> dict[str, object]:
        value = self._fields.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key)
        return value


def _shown(value: object) -> str:
    return json.dumps(value, default=repr)[:120]
