"""What a value looks like before it is text or HTML: a few kinds of blocks. Strings in them are raw, not yet safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["plain", "good", "busy", "bad", "quiet"]
"""How a state should feel. The word always says it too; no reader depends on colour."""

SYMBOLS: dict[Tone, str] = {"plain": "", "good": "\u25cf", "busy": "\u25d0", "bad": "\u2715", "quiet": "\u25cb"}


@dataclass(frozen=True)
class Cell:
    """One entry. `hover` is what a page says when pointed at (an exact time behind an age)."""

    text: str
    tone: Tone = "plain"
    hover: str = ""
    code: bool = False
    """Something to copy: an address, a command."""


@dataclass(frozen=True)
class Head:
    """A column's title; numbers are set to the right."""

    title: str
    numeric: bool = False
    note: bool = False
    """Words of any length about the row. A page has them below the table; a terminal, too, where they do not fit, and
    then cuts them in the table."""
    spare: int = 0
    """How soon a terminal that is too narrow goes without the column: the highest first, 0 never."""


@dataclass(frozen=True)
class Table:
    """Rows under heads; the first column names the row. `empty` is what is said instead when there are no rows."""

    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str = "Nothing to show."


@dataclass(frozen=True)
class Facts:
    """Names and values, one pair per line."""

    pairs: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Verbatim:
    """Text that keeps its lines and spaces: log lines, a script, a snippet. `label` names it."""

    text: str
    label: str = ""


@dataclass(frozen=True)
class Line:
    """A sentence."""

    cell: Cell


@dataclass(frozen=True)
class Steps:
    """Numbered sentences under a lead."""

    lead: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Prose:
    """What a model wrote: Markdown, its reasoning, and a line of figures about it."""

    markdown: str
    reasoning: str = ""
    figures: str = ""
    speaker: str = ""
    """Who said it, where more than one does."""


@dataclass(frozen=True)
class Part:
    """A piece of a bar: `amount` in the bar's own unit, `text` the same for people. A `spare` piece is what is left."""

    name: str
    amount: float
    text: str
    spare: bool = False


@dataclass(frozen=True)
class Bar:
    """What a whole is made of, in order."""

    label: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Bars:
    """Several wholes with pieces of the same names, drawn to the same scale, and one legend for all."""

    bars: tuple[Bar, ...]


Block = Table | Facts | Verbatim | Line | Steps | Prose | Bars
