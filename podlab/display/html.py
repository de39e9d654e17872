"""A value as static HTML: escaped, readable in a light and a dark theme, and without a script.

Colours are JupyterLab's CSS variables with fallbacks that suit both themes. A state is a symbol and a word; only the
symbol is coloured, so nothing depends on seeing colour and the contrast of text is the theme's own.
"""

from __future__ import annotations

import html as markup
import time
from typing import Any

from podlab.display import sanitize
from podlab.display.layout import SYMBOLS, Block, Cell, Facts, Line, Prose, Steps, Table, Verbatim
from podlab.display.markdown import markdown
from podlab.display.progress import amount_text, stage_text
from podlab.display.sheets import sheet
from podlab.display.tables import moment_text
from podlab.events import Notice, Stage

_STYLE = (
    "<style>"
    ".podlab{color:var(--jp-ui-font-color1,inherit);font-size:var(--jp-ui-font-size1,13px);line-height:1.5}"
    ".podlab .podlab-t{border-collapse:collapse;margin:0;border:none;font-size:inherit;table-layout:auto}"
    ".podlab .podlab-t th,.podlab .podlab-t td{text-align:left;vertical-align:top;padding:3px 14px 3px 0;border:none;"
    "white-space:normal;max-width:48em;overflow-wrap:anywhere;background:none;color:inherit}"
    ".podlab .podlab-t td.podlab-k,.podlab .podlab-t th{white-space:nowrap}"
    ".podlab .podlab-t thead th{font-weight:600;color:var(--jp-ui-font-color2,inherit);"
    "border-bottom:1px solid var(--jp-border-color2,rgba(128,128,128,.4))}"
    ".podlab .podlab-t tbody tr,.podlab .podlab-t thead tr{background:none}"
    ".podlab .podlab-t tbody th{font-weight:500}"
    ".podlab .podlab-t .podlab-n{text-align:right;font-variant-numeric:tabular-nums}"
    ".podlab .podlab-quiet{color:var(--jp-ui-font-color2,inherit)}"
    ".podlab .podlab-s{display:inline-block;width:1.3em;text-align:left}"
    ".podlab .podlab-good{color:var(--jp-success-color1,#388e3c)}"
    ".podlab .podlab-busy{color:var(--jp-warn-color1,#e65100)}"
    ".podlab .podlab-bad{color:var(--jp-error-color1,#d32f2f)}"
    ".podlab code{font-family:var(--jp-code-font-family,monospace);font-size:.95em;background:none;"
    "color:inherit;padding:0}"
    ".podlab pre{font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px);"
    "background:var(--jp-layout-color2,rgba(128,128,128,.12));color:inherit;padding:8px 10px;margin:4px 0 8px;"
    "border-radius:3px;overflow:auto;max-height:40em;white-space:pre}"
    ".podlab progress{accent-color:var(--jp-brand-color1,#1976d2);width:12em;vertical-align:middle;margin-right:8px}"
    ".podlab details{margin:0 0 6px}.podlab summary{cursor:pointer;color:var(--jp-ui-font-color2,inherit)}"
    ".podlab .podlab-a{font-size:var(--jp-content-font-size1,14px);max-width:60em;overflow-wrap:anywhere}"
    ".podlab .podlab-a p{margin:0 0 .6em}"
    "</style>"
)


def html(value: Any, *, now: float | None = None) -> str:
    """A value as HTML. `now`, seconds since the epoch, is when it was found out; it stands under tables of states."""
    moment = time.time() if now is None else now
    blocks = sheet(value, now=moment)
    stamped = any(isinstance(block, Table) and _ages(block) for block in blocks)
    checked = f'<div class="podlab-quiet">as of {moment_text(moment)}</div>' if stamped else ""
    return _page("".join(_block(block) for block in blocks) + checked)


def prose_html(text: str, *, reasoning: str = "", figures: str = "", busy: bool = False) -> str:
    """An answer, whole or so far: reasoning folded away, safe Markdown, and a line of figures."""
    return _page(_prose(Prose(text, reasoning, figures)), busy=busy)


def stage_html(stage: Stage, elapsed_s: float) -> str:
    """A step of long work: a bar where the end is known, and always the same thing as text."""
    bar = ""
    if stage.done is not None and stage.total:
        label = _escaped(amount_text(stage))
        bar = f'<progress max="{stage.total}" value="{min(stage.done, stage.total)}" aria-label="{label}"></progress>'
    return _page(f'<div role="status">{bar}{_escaped(stage_text(stage, elapsed_s))}</div>')


def line_html(text: str) -> str:
    """One quiet sentence: what remains of finished work."""
    return _page(f'<div class="podlab-quiet">{_escaped(text)}</div>')


def notice_html(notice: Notice) -> str:
    """A sentence a person should see; a warning says that it is one."""
    if notice.level == "warning":
        said = f'<span class="podlab-s podlab-busy" aria-hidden="true">!</span><b>Warning:</b> {_escaped(notice.text)}'
    else:
        said = _escaped(notice.text)
    return _page(f'<div role="status">{said}</div>')


def verbatim_html(text: str) -> str:
    """Text as it is: help, a JSON document."""
    return _page(_pre(text))


def _page(body: str, *, busy: bool = False) -> str:
    # Mathematics in a page is typeset from text, and TeX has commands that make links: these classes keep it text.
    state = ' aria-busy="true"' if busy else ""
    return f'{_STYLE}<div class="podlab tex2jax_ignore mathjax_ignore"{state}>{body}</div>'


def _escaped(text: str) -> str:
    return markup.escape(sanitize.line(text))


def _pre(text: str) -> str:
    return f'<pre tabindex="0">{markup.escape(sanitize.block(text))}</pre>'


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Facts():
            rows = "".join(
                f'<tr><th scope="row" class="podlab-quiet">{_escaped(name)}</th><td>{_cell(cell)}</td></tr>'
                for name, cell in block.pairs
            )
            return f'<table class="podlab-t"><tbody>{rows}</tbody></table>'
        case Verbatim():
            label = f'<div class="podlab-quiet">{_escaped(block.label)}</div>' if block.label else ""
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
        return f'<div class="podlab-quiet">{_escaped(table.empty)}</div>'
    heads = "".join(
        f'<th scope="col"{_number(head.numeric)}>{_escaped(head.title)}</th>' for head in table.heads
    )
    rows = "".join(
        f'<tr><th scope="row">{_cell(row[0])}</th>'
        + "".join(
            f"<td{_number(head.numeric) or _short(cell)}>{_cell(cell)}</td>"
            for head, cell in zip(table.heads[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return f'<table class="podlab-t"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _number(numeric: bool) -> str:
    return ' class="podlab-n"' if numeric else ""


def _short(cell: Cell) -> str:
    return ' class="podlab-k"' if len(cell.text) <= 24 else ""


def _cell(cell: Cell) -> str:
    said = _escaped(cell.text)
    if cell.code:
        said = f"<code>{said}</code>"
    if cell.hover:
        said = f'<span title="{_escaped(cell.hover)}">{said}</span>'
    if symbol := SYMBOLS[cell.tone]:
        said = f'<span class="podlab-s podlab-{cell.tone}" aria-hidden="true">{symbol}</span>{said}'
    return said


def _prose(prose: Prose) -> str:
    parts = []
    if prose.speaker:
        parts.append(f'<div class="podlab-quiet"><b>{_escaped(prose.speaker)}</b></div>')
    if prose.reasoning:
        words = len(prose.reasoning.split())
        thought = f"{words} word{'' if words == 1 else 's'}"
        parts.append(f"<details><summary>Reasoning ({thought})</summary>{_pre(prose.reasoning)}</details>")
    parts.append(f'<div class="podlab-a">{markdown(prose.markdown)}</div>')
    if prose.figures:
        parts.append(f'<div class="podlab-quiet">{_escaped(prose.figures)}</div>')
    return "".join(parts)


def _ages(table: Table) -> bool:
    """Whether a table says what was found at a moment, and so is true only as of then."""
    return bool(table.rows) and any(head.title == "state" for head in table.heads)
