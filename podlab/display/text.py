"""A value as plain text, and as something rich can draw in a terminal."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from podlab.display import sanitize
from podlab.display.layout import Bars, Block, Cell, Facts, Line, Prose, Steps, Table, Tone, Verbatim
from podlab.display.sheets import sheet

if TYPE_CHECKING:  # rich is for terminals; a notebook never pays for it
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

_STYLES: dict[Tone, str] = {"plain": "", "good": "green", "busy": "yellow", "bad": "bold red", "quiet": "dim"}
_NEVER_FOLDED = 30
"""Columns up to this width keep their entries on one line; longer ones (a summary, a command) fold."""
_LEAST = 20
"""What a column that is cut or folded has at least, before other columns make room for it."""
_NARROWEST = 10
"""What such a column has where even that is not enough, and nothing is left to go without."""
_PIECES, _REST = "█▓▒░", "·"
"""Letters of a bar, one for each piece, and for what is left. None of them is a sign of arithmetic."""
_BAR_LETTERS = 48
_GAP = 3
"""Between two columns, as rich draws this kind of table."""


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
        case Bars():
            return _bars(block)


def _bars(bars: Bars) -> str:
    """Each bar as letters, one kind for each piece, and what they mean."""
    scale = max((sum(part.amount for part in bar.parts) for bar in bars.bars), default=0.0) or 1.0
    wide = max((_width(sanitize.line(bar.label)) for bar in bars.bars), default=0)
    lines = []
    for bar in bars.bars:
        drawn, reached = "", 0.0
        for index, part in enumerate(bar.parts):
            reached += part.amount
            end = round(_BAR_LETTERS * reached / scale)
            drawn += (_REST if part.spare else _PIECES[index % len(_PIECES)]) * (end - len(drawn))
        lines.append(f"{_padded(sanitize.line(bar.label), wide, right=False)}  [{drawn}]")
    legend = (
        f"{_REST if part.spare else _PIECES[index % len(_PIECES)]} {part.name}"
        for index, part in enumerate(bars.bars[0].parts if bars.bars else ())
    )
    return "\n".join([*lines, "  ".join(legend)])


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
            return _Grid(block)
        case Facts():
            return _rich_facts(block)
        case Steps():
            return _rich_steps(block)
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


class _Grid:
    """A table that suits the width it is drawn in: it cuts notes, which follow whole, and drops spare columns."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._widths = [
            max(_width(head.title), *(_width(sanitize.line(row[index].text)) for row in table.rows))
            for index, head in enumerate(table.heads)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        heads = self._table.heads
        kept = self._kept(options.max_width)
        widths = self._shared(kept, options.max_width - _GAP * (len(kept) - 1))
        yield self._drawn(widths)
        for row in self._table.rows:
            for index, head in enumerate(heads):
                note = sanitize.line(row[index].text) if head.note else ""
                if _width(note) > widths.get(index, 0):
                    yield Text(f"\n{sanitize.line(row[0].text)}: {note}")
        if left_out := [head.title for index, head in enumerate(heads) if index not in kept and not head.note]:
            yield Text(f"\nLeft out for want of width: {', '.join(left_out)}.", style="dim")

    def _kept(self, width: int) -> list[int]:
        """The columns there is room for. Notes go first: they can stand below."""
        heads = self._table.heads
        kept = list(range(len(heads)))
        for index in sorted(kept, key=lambda index: (not heads[index].note, -heads[index].spare)):
            if sum(map(self._least, kept)) + _GAP * (len(kept) - 1) <= width:
                break
            if heads[index].note or heads[index].spare:
                kept.remove(index)
        return kept

    def _gives_way(self, index: int) -> bool:
        return self._table.heads[index].note or self._widths[index] > _NEVER_FOLDED

    def _least(self, index: int) -> int:
        """A title gives way at its spaces, an entry only where it is long."""
        if self._gives_way(index):
            return min(self._widths[index], _LEAST)
        entries = (_width(sanitize.line(row[index].text)) for row in self._table.rows)
        return max(*map(_width, self._table.heads[index].title.split(" ")), *entries)

    def _longest_word(self, index: int) -> int:
        entries = (sanitize.line(row[index].text) for row in self._table.rows)
        return max(_width(word) for entry in (self._table.heads[index].title, *entries) for word in entry.split(" "))

    def _shared(self, kept: list[int], room: int) -> dict[int, int]:
        """A width for each column: the least of each, then what is left to those that want little more first."""
        widths = {index: self._least(index) for index in kept}
        room -= sum(widths.values())
        for index in filter(self._gives_way, kept):
            less = min(max(0, -room), max(0, widths[index] - _NARROWEST))
            widths[index] -= less
            room += less
        # Rather broken between its words than another one within a word.
        for index in sorted(kept, key=lambda index: -widths[index]):
            less = min(max(0, -room), max(0, widths[index] - self._longest_word(index)))
            widths[index] -= less
            room += less
        by_want = sorted(kept, key=lambda index: self._widths[index] - widths[index])
        for place, index in enumerate(by_want):
            more = min(self._widths[index] - widths[index], max(0, room) // (len(by_want) - place))
            widths[index] += more
            room -= more
        return widths

    def _drawn(self, widths: dict[int, int]) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for index, width in widths.items():
            head = self._table.heads[index]
            drawn.add_column(
                Text(head.title),
                justify="right" if head.numeric else "left",
                vertical="top",
                overflow="ellipsis" if head.note else "fold",
                no_wrap=head.note,
                width=width,
            )
        for row in self._table.rows:
            drawn.add_row(*(_rich_cell(row[index]) for index in widths))
        return drawn


def _rich_steps(steps: Steps) -> RenderableType:
    """What folds goes on under its own beginning."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, justify="right", min_width=4)
    grid.add_column(overflow="fold")
    for number, item in enumerate(steps.items, 1):
        grid.add_row(f"{number}.", Text(sanitize.line(item)))
    return Group(Text(steps.lead), grid)


def _rich_facts(facts: Facts) -> RenderableType:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, cell in facts.pairs:
        grid.add_row(Text(name, style="dim"), _rich_cell(cell))
    return grid
