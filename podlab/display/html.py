"""A value as static HTML: escaped, readable in a light and a dark theme, and without a script.

Colours are JupyterLab's CSS variables with fallbacks that suit both themes. A state is a symbol and a word; only the
symbol is coloured, so nothing depends on seeing colour and the contrast of text is the theme's own.
"""

from __future__ import annotations

import html as markup
import time
from collections.abc import Iterable
from typing import Any

from podlab.display import sanitize
from podlab.display.layout import (
    SYMBOLS,
    Bars,
    Block,
    Cell,
    Facts,
    Head,
    Line,
    Part,
    Prose,
    Steps,
    Table,
    Tone,
    Verbatim,
)
from podlab.display.markdown import PRE, markdown
from podlab.display.progress import amount_text, stage_text
from podlab.display.sheets import sheet
from podlab.display.tables import moment_text
from podlab.events import Ask, Notice, Stage

# Inline, not a style sheet: an answer is drawn anew many times a second, each sheet would make the page compute every
# style again, and hosts that strip sheets keep these. What is not said here (fonts of headings, code, zebra rows) is
# the host's own.
_LEFT = "text-align:left;vertical-align:top"
_RIGHT = "text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"
_WHOLE = "white-space:nowrap"
_WORDS = "overflow-wrap:normal"
"""Of a title: where the page is narrow it is broken between its words."""
_QUIET = "color:var(--jp-ui-font-color2,inherit)"
_NAME = f"{_LEFT};{_WHOLE};font-weight:normal;{_QUIET};min-width:7.5em"
"""Of a fact. As wide as most of them, so that the values of tables below one another begin at one line."""
_TABLE = "margin:0 0 4px;border-collapse:collapse;table-layout:auto"
_PAGE = "color:var(--jp-ui-font-color1,inherit);overflow-wrap:anywhere"
_SHORT, _COPIED = 24, 60
"""Characters of an entry, and of one to copy, that is not broken into lines."""
_FOLDED, _PADDING, _PAGE_LETTERS = 26, 2, 100
"""Characters of an entry that is, of the space around each, and of a notebook's column in a window 1200 pixels wide."""
_BAR = "accent-color:var(--jp-brand-color1,#1976d2);width:12em;vertical-align:middle;margin-right:8px"
_PIECES = "display:flex;gap:1px;height:1.1em;max-width:48em;margin:2px 0 6px;overflow:hidden"
_PIECE_COLOURS = (
    "var(--jp-brand-color1,#1976d2)", "var(--jp-warn-color1,#e65100)", "var(--jp-accent-color1,#388e3c)",
    "var(--jp-info-color1,#0097a7)",
)  # fmt: skip
_SPARE = "var(--jp-layout-color3,#bdbdbd)"
_SYMBOL = "display:inline-block;width:1.3em;text-align:left"
_TONES: dict[Tone, str] = {
    "plain": "", "quiet": _QUIET, "good": "color:var(--jp-success-color1,#388e3c)",
    "busy": "color:var(--jp-warn-color1,#e65100)", "bad": "color:var(--jp-error-color1,#d32f2f)",
}  # fmt: skip


def html(value: Any, *, now: float | None = None) -> str:
    """A value as HTML. `now`, seconds since the epoch, is when it was found out; it stands under tables of states."""
    moment = time.time() if now is None else now
    blocks = sheet(value, now=moment)
    stamped = any(isinstance(block, Table) and _ages(block) for block in blocks)
    checked = f'<div style="{_QUIET}">as of {moment_text(moment)}</div>' if stamped else ""
    return _page("".join(_block(block) for block in blocks) + checked)


def blocks_html(blocks: Iterable[Block]) -> str:
    """Blocks that are put together by who shows them."""
    return _page("".join(map(_block, blocks)))


def prose_html(text: str, *, reasoning: str = "", figures: str = "", busy: bool = False) -> str:
    """An answer, whole or so far: reasoning folded away, safe Markdown, and a line of figures."""
    return _page(_prose(Prose(text, reasoning, figures)), busy=busy)


def stage_html(stage: Stage, elapsed_s: float) -> str:
    """A step of long work: a bar where the end is known, and always the same thing as text."""
    parts = "".join(f"<div>{_bar_html(part)}{_escaped(stage_text(part))}</div>" for part in stage.parts)
    return _page(f'<div role="status">{_bar_html(stage)}{_escaped(stage_text(stage, elapsed_s))}{parts}</div>')


def _bar_html(stage: Stage) -> str:
    if stage.done is None or not stage.total:
        return ""
    label = _escaped(amount_text(stage))
    return (
        f'<progress style="{_BAR}" max="{stage.total}" value="{min(stage.done, stage.total)}" '
        f'aria-label="{label}"></progress>'
    )


def line_html(text: str) -> str:
    """One quiet sentence: what remains of finished work."""
    return _page(f'<div style="{_QUIET}">{_escaped(text)}</div>')


def notice_html(notice: Notice) -> str:
    """A sentence a person should see; a warning says that it is one."""
    if notice.level == "warning":
        said = f"{_symbol('!', 'busy')}<b>Warning:</b> {_escaped(notice.text)}"
    else:
        said = _escaped(notice.text)
    return _page(f'<div role="status">{said}</div>')


def ask_html(ask: Ask) -> str:
    """A question and what the answer rests on. How it is answered stands below."""
    facts = tuple((name, Cell(value)) for name, value in ask.facts)
    lines = [line for line in ask.detail.splitlines() if line.strip()]
    blocks: list[Block] = [Facts(facts)] if facts else []
    blocks += [Verbatim(ask.detail)] if ask.kind == "command" else [Line(Cell(line)) for line in lines]
    choices = "".join(f"<li>{_escaped(choice)}</li>" for choice in ask.choices)
    listed = f"<ol>{choices}</ol>" if choices else ""
    return _page(f"<div><b>{_escaped(ask.question)}</b></div>{''.join(map(_block, blocks))}{listed}")


def verbatim_html(text: str) -> str:
    """Text as it is: help, a JSON document."""
    return _page(_pre(text))


def _page(body: str, *, busy: bool = False) -> str:
    # Mathematics in a page is typeset from text, and TeX has commands that make links: these classes keep it text.
    state = ' aria-busy="true"' if busy else ""
    return f'<div class="podlab tex2jax_ignore mathjax_ignore" style="{_PAGE}"{state}>{body}</div>'


def _escaped(text: str) -> str:
    return markup.escape(sanitize.line(text))


def _pre(text: str) -> str:
    return f'<pre tabindex="0" style="{PRE}">{markup.escape(sanitize.block(text))}</pre>'


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Facts():
            rows = "".join(
                f'<tr><th scope="row" style="{_NAME}">{_escaped(name)}</th><td style="{_LEFT}">{_cell(cell)}</td></tr>'
                for name, cell in block.pairs
            )
            return f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>'
        case Verbatim():
            label = f'<div style="{_QUIET}">{_escaped(block.label)}</div>' if block.label else ""
            return label + _pre(block.text)
        case Line():
            return f"<div>{_cell(block.cell)}</div>"
        case Steps():
            items = "".join(f"<li>{_escaped(item)}</li>" for item in block.items)
            return f"<div>{_escaped(block.lead)}</div><ol>{items}</ol>"
        case Prose():
            return _prose(block)
        case Bars():
            return _bars(block)


def _bars(bars: Bars) -> str:
    """Bars of coloured pieces, with a legend. Hidden from those who hear the page: a table beside says the same."""
    scale = max((sum(part.amount for part in bar.parts) for bar in bars.bars), default=0.0) or 1.0
    rows = []
    for bar in bars.bars:
        pieces = "".join(
            f'<span title="{_escaped(f"{part.name} {part.text}")}" style="width:{100 * part.amount / scale:.2f}%;'
            f'background:{_piece_colour(part, index)}"></span>'
            for index, part in enumerate(bar.parts)
            if part.amount > 0
        )
        rows.append(f'<div>{_escaped(bar.label)}<span aria-hidden="true" style="{_PIECES}">{pieces}</span></div>')
    return "".join(rows) + _legend(bars)


def _legend(bars: Bars) -> str:
    parts = bars.bars[0].parts if bars.bars else ()
    entries = "".join(
        f'<span style="{_WHOLE};margin-right:1em"><span aria-hidden="true" style="display:inline-block;width:.8em;'
        f'height:.8em;margin-right:.4em;background:{_piece_colour(part, index)}"></span>{_escaped(part.name)}</span>'
        for index, part in enumerate(parts)
    )
    return f'<div style="{_QUIET};margin-bottom:4px">{entries}</div>'


def _piece_colour(part: Part, index: int) -> str:
    return _SPARE if part.spare else _PIECE_COLOURS[index % len(_PIECE_COLOURS)]


def _table(table: Table) -> str:
    if not table.rows:
        return f'<div style="{_QUIET}">{_escaped(table.empty)}</div>'
    plain = _kept(table)
    notes = [index for index, head in enumerate(table.heads) if head.note]
    heads = "".join(
        f'<th scope="col" style="{_RIGHT if head.numeric else _LEFT};{_WORDS}">{_escaped(head.title)}</th>'
        for head in (table.heads[index] for index in plain)
    )
    rows = "".join(f"<tr>{_row([(table.heads[index], row[index]) for index in plain])}</tr>" for row in table.rows)
    drawn = f'<table style="{_TABLE}"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    below = "".join(_note(row[0], row[index]) for row in table.rows for index in notes if row[index].text)
    left_out = [head.title for index, head in enumerate(table.heads) if index not in plain and not head.note]
    said = ""
    if left_out:
        said = f'<div style="{_QUIET}">Left out for want of width: {_escaped(", ".join(left_out))}.</div>'
    return f'<div style="overflow-x:auto">{drawn}</div>{said}{below}'


def _kept(table: Table) -> list[int]:
    """The columns that a page of usual width has room for, without the notes, which stand below."""
    kept = [index for index, head in enumerate(table.heads) if not head.note]
    for index in sorted(kept, key=lambda index: -table.heads[index].spare):
        if sum(_letters(table, each) + _PADDING for each in kept) <= _PAGE_LETTERS:
            break
        if table.heads[index].spare:
            kept.remove(index)
    return kept


def _letters(table: Table, index: int) -> int:
    """About how wide a column is at its narrowest: its longest unbroken entry, or a word of its title."""
    cells = [row[index] for row in table.rows]
    narrowest = (len(cell.text) if index == 0 or _unbroken(cell) else _FOLDED for cell in cells)
    return max(*map(len, table.heads[index].title.split(" ")), *narrowest)


def _row(entries: list[tuple[Head, Cell]]) -> str:
    """The first entry names its row for those who hear the table; short entries are not broken."""
    (_, first), *others = entries
    named = f'<th scope="row" style="{_LEFT};{_WHOLE};font-weight:500">{_cell(first)}</th>'
    return named + "".join(
        f'<td style="{_RIGHT if head.numeric else _LEFT};{_width(cell)}">{_cell(cell)}</td>' for head, cell in others
    )


def _note(row: Cell, note: Cell) -> str:
    """Words of any length about a row stand below the table: in it they would push the other columns out of view."""
    return f"<div><b>{_cell(row)}</b>: {_cell(note)}</div>"


def _width(cell: Cell) -> str:
    return _WHOLE if _unbroken(cell) else "min-width:14em"


def _unbroken(cell: Cell) -> bool:
    return len(cell.text) <= (_COPIED if cell.code else _SHORT)


def _cell(cell: Cell) -> str:
    said = _escaped(cell.text)
    if cell.code:
        said = f'<code style="white-space:inherit">{said}</code>'  # Lab lets code break anywhere
    if cell.hover:
        said = f'<span title="{_escaped(cell.hover)}">{said}</span>'
    if symbol := SYMBOLS[cell.tone]:
        said = _symbol(symbol, cell.tone) + said
    return said


def _symbol(symbol: str, tone: Tone) -> str:
    # Hidden from those who hear the page: the word beside it says the same.
    return f'<span aria-hidden="true" style="{_SYMBOL};{_TONES[tone]}">{symbol}</span>'


def _prose(prose: Prose) -> str:
    parts = []
    if prose.speaker:
        parts.append(f'<div style="{_QUIET}"><b>{_escaped(prose.speaker)}</b></div>')
    if prose.reasoning:
        words = len(prose.reasoning.split())
        thought = f"{words} word{'' if words == 1 else 's'}"
        parts.append(
            f'<details><summary style="{_QUIET};cursor:pointer">Reasoning ({thought})</summary>'
            f"{_pre(prose.reasoning)}</details>"
        )
    parts.append(f'<div style="max-width:60em">{markdown(prose.markdown)}</div>')
    if prose.figures:
        parts.append(f'<div style="{_QUIET}">{_escaped(prose.figures)}</div>')
    return "".join(parts)


def _ages(table: Table) -> bool:
    """Whether a table says what was found at a moment, and so is true only as of then."""
    return bool(table.rows) and any(head.title == "state" for head in table.heads)
