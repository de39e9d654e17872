"""Tables of TOML checked against what they may hold, with errors that name field, value and fix."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from podlab.errors import BadSettings


@dataclass(frozen=True)
class Field:
    """What a field may hold: a type as TOML gives it, and the words that say so in an error ("It has to be ...")."""

    kind: type
    fix: str
    check: Callable[[Any], bool] = lambda value: True

    def takes(self, value: Any) -> bool:
        """Whether `value` is of the kind (an int will do for a float, True is no number) and passes the check."""
        kinds = (int, float) if self.kind is float else (self.kind,)
        return isinstance(value, kinds) and (self.kind is bool or not isinstance(value, bool)) and self.check(value)


def words(fix: str) -> Field:
    """A list of texts."""
    return Field(list, fix, lambda value: all(isinstance(item, str) for item in value))


def count(fix: str) -> Field:
    """A whole number from 1."""
    return Field(int, fix, lambda value: value > 0)


def number(fix: str, *, most: float | None = None) -> Field:
    """A number above 0, and not above `most`."""
    return Field(float, fix, lambda value: value > 0 and (most is None or value <= most))


def pairs(fix: str) -> Field:
    """A table of texts."""
    return Field(dict, fix, lambda value: all(isinstance(item, str) for item in value.values()))


def document(text: str, where: str, keys: Mapping[str, type], fix: str) -> dict[str, Any]:
    """A TOML document that holds nothing but `keys`, each of its type. Raises BadSettings with `fix`."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{where} is not TOML: {error}", hint="Mend that line.") from error
    for key, value in found.items():
        if key not in keys or not isinstance(value, keys[key]):
            raise BadSettings(f"{where} holds {key!r}, which has no place in it.", hint=fix)
    return found


def checked(fields: Any, schema: Mapping[str, Field], at: str, *, needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table as it is, once every field of it is known and holds what it may. Raises BadSettings, naming `at`."""
    if not isinstance(fields, dict):
        raise BadSettings(f"{at} is {fields!r}.", hint="It has to be a table of fields.")
    for name, value in fields.items():
        if name not in schema:
            close = difflib.get_close_matches(name, schema, n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"Fields: {', '.join(schema)}."
            raise BadSettings(f"{at}: there is no field {name!r}.", hint=meant)
        if not schema[name].takes(value):
            raise BadSettings(f"{at}: {name} is {value!r}.", hint=f"It has to be {schema[name].fix}.")
    for name in needed:
        if name not in fields:
            raise BadSettings(f"{at}: {name} is missing.", hint=f"It has to be {schema[name].fix}.")
    return dict(fields)
