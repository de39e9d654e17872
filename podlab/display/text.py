"""A value as plain text, and as something rich can draw in a terminal."""

from __future__ import annotations

import time
import unicodedata
from typing import TYPE_CHECKING, Any

from podlab.display import sanitize
from podlab.display.layout import Block, Cell, Facts, Line, Prose, Steps, Table, Tone, Verbatim
from podlab.display.sheets import sheet

if TYPE_CHECKING:  # rich is for terminals; a notebook never pays for it
    from rich.console import RenderableType
    from rich.text import Text

_STYLES: dict[Tone, str] = {"plain": "", "good": "green", "busy": "yellow", "bad": "bold red", "quiet": "dim"}
_NEVER_WRAPPED = 14
"""Columns up to this width keep their words whole in a narrow terminal; the long ones fold."""


def text(value: Any, *, now: float | None = None) -> str:
    """A value as plain text without colour, safe to print; lines are not cut to any width."""
    blocks = sheet(value, now=time.time() if now is None else now)
    return "\n\n".join(_block(block) for block in blocks)


def renderable(value: Any, *, now: float | None = None) -> RenderableType:
    """A value for rich's `Console.print`, which knows the width, and whether colour is wanted (NO_COLOR)."""
    from rich.console import Group

    blocks = sheet(value, now=time.time() if now is None else now)
    parts: list[RenderableType] = []
    for block in blocks:
        parts += ["", _rich(block)] if parts else [_rich(block)]
    return Group(*parts)


def _block(block: Block) -> str:
    match block:
        case Table():
            return _grid(block)
        case Facts():
            wide = max((len(name) for name, _ in block.pairs), default=0)
            return "\n".join(f"{name.ljust(wide)}  {sanitize.line(cell.text)}" for name, cell in block.pairs)
        case Verbatim():
            label = f"{block.label}:\n" if block.label else ""
            return label + sanitize.block(block.text)
        case Line():
            return sanitize.line(block.cell.text)
        case Steps():
            steps = (f"  {number}. {sanitize.line(item)}" for number, item in enumerate(block.items, 1))
            return "\n".join((block.lead, *steps))
        case Prose():
            said = sanitize.block(block.markdown)
            return f"{block.speaker}: {said}" if block.speaker else said


def _grid(table: Table) -> str:
    if not table.rows:
        return table.empty
    lines = [[head.title for head in table.heads], *([sanitize.line(cell.text) for cell in row] for row in table.rows)]
    widths = [max(_width(row[index]) for row in lines) for index in range(len(table.heads))]
    return "\n".join(
        "  ".join(
            _padded(entry, widths[index], right=table.heads[index].numeric) for index, entry in enumerate(row)
        ).rstrip()
        for row in lines
    )


def _width(entry: str) -> int:
    """Columns a terminal uses: two for wide characters, none for combining marks."""
    if entry.isascii():
        return len(entry)
    wide = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in entry)
    return wide - sum(1 for char in entry if unicodedata.combining(char) or char in "\u200d\ufe0f")


def _padded(entry: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(entry))
    return space + entry if right else entry + space


def _rich(block: Block) -> RenderableType:
    from rich.text import Text

    match block:
        case Table() if block.rows:
            return _rich_table(block)
        case Facts():
            return _rich_facts(block)
        case Line():
            return _rich_cell(block.cell) if block.cell.tone != "good" else Text(sanitize.line(block.cell.text))
        case Prose():
            parts = Text(f"{block.speaker}: " if block.speaker else "", style="bold")
            parts.append(sanitize.block(block.markdown), style="not bold")
            return parts
        case _:
            return Text(_block(block))


def _rich_cell(cell: Cell) -> Text:
    from rich.text import Text

    # Text, never a str: rich reads [brackets] in a str as markup, and names come from outside.
    return Text(sanitize.line(cell.text), style=_STYLES[cell.tone])


def _rich_table(table: Table) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, head in enumerate(table.heads):
        widest = max(_width(sanitize.line(row[index].text)) for row in table.rows)
        drawn.add_column(
            Text(head.title),
            justify="right" if head.numeric else "left",
            overflow="fold",
            no_wrap=max(widest, len(head.title)) <= _NEVER_WRAPPED,
        )
    for row in table.rows:
        drawn.add_row(*(_rich_cell(cell) for cell in row))
    return drawn


def _rich_facts(facts: Facts) -> RenderableType:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, cell in facts.pairs:
        grid.add_row(Text(name, style="dim"), _rich_cell(cell))
    return grid
