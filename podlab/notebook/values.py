"""What a magic returns: a verb's value that shows itself, and that a program can go through."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from podlab.commands.results import document, rows
from podlab.display.plots import MIME
from podlab.display.sanitize import block
from podlab.display.text import text
from podlab.errors import PodlabError

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped, unused-ignore]


class Value:
    """A verb's value. Its fields are attributes (`value.name`), `to_dict()` is its JSON document.

    It shows as HTML in a notebook and as text in a terminal, as it was when the verb ended: showing it later asks
    nobody anything.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self._made_at = time.time()
        self._on_screen: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also keeps copy and pickle from asking for _value before it is there
            raise AttributeError(name)
        try:
            return getattr(self._value, name)
        except AttributeError:
            known = ", ".join(self._names())
            raise AttributeError(f"{type(self._value).__name__} has no {name!r}; it has {known}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._names()})

    def __repr__(self) -> str:
        return text(self._value, now=self._made_at)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from podlab.display.html import html

        return {"text/html": html(self._value, now=self._made_at), "text/plain": repr(self)}

    def _ipython_display_(self) -> None:
        # A result whose text has just streamed into this very cell is not shown a second time; NotImplementedError
        # tells IPython to show it the usual way.
        if self._on_screen is not None and self._on_screen():
            return
        drawn = self.figure()
        if drawn is None:
            raise NotImplementedError
        from IPython.display import display

        # Two outputs: a front end shows only the richest form of one.
        display(self._repr_mimebundle_(), raw=True)  # type: ignore[no-untyped-call]
        said = f"a figure of {type(self._value).__name__}"
        display({MIME: drawn, "text/plain": said}, raw=True)  # type: ignore[no-untyped-call]

    def figure(self) -> dict[str, Any] | None:
        """The value as a Plotly figure, a plain dict (`plotly.graph_objects.Figure(value.figure())`); None for most."""
        from podlab.display.plots import figure

        return figure(self._value)

    def _names(self) -> list[str]:
        if not dataclasses.is_dataclass(self._value):
            return []
        return [field.name for field in dataclasses.fields(self._value)]

    def to_dict(self) -> Any:
        """The value as plain dicts, lists, strings and numbers: its JSON document. Secrets are masked."""
        return document(self._value)

    def to_pandas(self) -> pandas.DataFrame:
        """The value as a DataFrame: a row for each of its rows, or one row of its fields."""
        try:
            import pandas
        except ImportError as error:
            raise PodlabError("pandas is not installed.", hint="Install it: pip install pandas") from error
        found = rows(self._value) if self._names() else None
        return pandas.DataFrame([_flat(document(item)) for item in (found if found is not None else [self._value])])


class Rows(Value):
    """A verb's value that is a table: it has a length, can be gone through, and is indexed by number."""

    def __init__(self, value: Any, items: list[Any]) -> None:
        super().__init__(value)
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __getitem__(self, index: int | slice) -> Any:
        return self._items[index]

    def __bool__(self) -> bool:
        return bool(self._items)


class JsonDocument(Value):
    """A verb's value as `--json` gives it: shows as JSON text, `str()` is that text."""

    def __repr__(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    __str__ = __repr__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self)}


class HelpText:
    """What --help says."""

    def __init__(self, said: str) -> None:
        self._said = block(said).rstrip()

    def __repr__(self) -> str:
        return self._said


def wrapped(value: Any) -> Value:
    """A verb's value as what a magic returns."""
    items = rows(value) if dataclasses.is_dataclass(value) else None
    return Value(value) if items is None else Rows(value, items)


def _flat(item: Any, prefix: str = "") -> dict[str, Any]:
    """Nested objects as columns: {"pod": {"name": ...}} has the column pod.name."""
    if not isinstance(item, dict):
        return {prefix or "value": item}
    flat: dict[str, Any] = {}
    for name, entry in item.items():
        path = f"{prefix}.{name}" if prefix else name
        flat.update(_flat(entry, path) if isinstance(entry, dict) else {path: entry})
    return flat
