"""A value as static HTML: escaped, readable in a light and a dark theme, and without a script.

Colours are JupyterLab's CSS variables with fallbacks that suit both themes. A state is a symbol and a word; only the
symbol is coloured, so nothing depends on seeing colour and the contrast of text is the theme's own.
"""

from __future__ import annotations

import html as markup
import time
from typing import Any

from podlab.display import sanitize
from podlab.display.layout import SYMBOLS, Block, Cell, Facts, Head, Line, Prose, Steps, Table, Tone, Verbatim
from podlab.display.markdown import PRE, markdown
from podlab.display.progress import amount_text, stage_text
from podlab.display.sheets import sheet
from podlab.display.tables import moment_text
from podlab.events import Notice, Stage

# Inline, not a style sheet: an answer is drawn anew many times a second, each sheet would make the page compute every
# style again, and hosts that strip sheets keep these. What is not said here (fonts of headings, code, zebra rows) is
# the host's own.
_LEFT = "text-align:left;vertical-align:top"
_RIGHT = "text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"
_WHOLE = "white-space:nowrap"
_QUIET = "color:var(--jp-ui-font-color2,inherit)"
_TABLE = "margin:0 0 4px;border-collapse:collapse;table-layout:auto"
_PAGE = "color:var(--jp-ui-font-color1,inherit);overflow-wrap:anywhere"
_SHORT, _COPIED = 24, 60
"""Characters of an entry, and of one to copy, that is not broken into lines."""
_BAR = "accent-color:var(--jp-brand-color1,#1976d2);width:12em;vertical-align:middle;margin-right:8px"
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


def prose_html(text: str, *, reasoning: str = "", figures: str = "", busy: bool = False) -> str:
    """An answer, whole or so far: reasoning folded away, safe Markdown, and a line of figures."""
    return _page(_prose(Prose(text, reasoning, figures)), busy=busy)


def stage_html(stage: Stage, elapsed_s: float) -> str:
    """A step of long work: a bar where the end is known, and always the same thing as text."""
    bar = ""
    if stage.done is not None and stage.total:
        label = _escaped(amount_text(stage))
        bar = (
            f'<progress style="{_BAR}" max="{stage.total}" value="{min(stage.done, stage.total)}" '
            f'aria-label="{label}"></progress>'
        )
    return _page(f'<div role="status">{bar}{_escaped(stage_text(stage, elapsed_s))}</div>')


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
                f'<tr><th scope="row" style="{_LEFT};{_WHOLE};font-weight:normal;{_QUIET}">{_escaped(name)}</th>'
                f'<td style="{_LEFT}">{_cell(cell)}</td></tr>'
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


def _table(table: Table) -> str:
    if not table.rows:
        return f'<div style="{_QUIET}">{_escaped(table.empty)}</div>'
    heads = "".join(
        f'<th scope="col" style="{_RIGHT if head.numeric else _LEFT};{_WHOLE}">{_escaped(head.title)}</th>'
        for head in table.heads
    )
    rows = "".join(f"<tr>{_row(table.heads, row)}</tr>" for row in table.rows)
    drawn = f'<table style="{_TABLE}"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div style="overflow-x:auto">{drawn}</div>'


def _row(heads: tuple[Head, ...], row: tuple[Cell, ...]) -> str:
    """The first entry names its row for those who hear the table; short entries are not broken."""
    first, *others = row
    named = f'<th scope="row" style="{_LEFT};{_WHOLE};font-weight:500">{_cell(first)}</th>'
    return named + "".join(
        f'<td style="{_RIGHT if head.numeric else _LEFT};{_width(cell)}">{_cell(cell)}</td>'
        for head, cell in zip(heads[1:], others, strict=True)
    )


def _width(cell: Cell) -> str:
    return _WHOLE if len(cell.text) <= (_COPIED if cell.code else _SHORT) else "min-width:14em"


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
