"""One value of every kind a verb returns; the strings in it are what the test says."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

from podlab import types as nouns
from podlab.commands import rent_results, results

_SCALARS: dict[Any, Any] = {int: 7, float: 1763690000.0, bool: True}


def made(kind: Any, text: str) -> Any:
    """A value of that type with `text` wherever a string stands."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is str or kind is Any:
        return text
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin in (typing.Union, types.UnionType):
        return made(next(argument for argument in arguments if argument is not type(None)), text)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        return (made(arguments[0], text), made(arguments[0], text))
    if origin is dict:
        return {text: text}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: made(hints[field.name], text) for field in dataclasses.fields(kind)})


KINDS = sorted(
    (
        kind
        for room in (results, rent_results, nouns)
        for kind in vars(room).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == room.__name__ and kind is not results.Outcome
    ),
    key=str,
)
"""Every dataclass of results.py, rent_results.py and types.py."""
