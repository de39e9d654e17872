"""What a model wrote, as HTML that cannot do anything: no raw HTML, no images, links to http(s) only.

The parser is markdown-it-py with HTML off; what it renders is limited to `TAGS` and `ATTRIBUTES`. An unfinished text
(an answer that is still arriving) renders as what is there so far: an open code block is code already.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from podlab.display import sanitize

if TYPE_CHECKING:  # 40 ms that only an answer pays for
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

TAGS = frozenset(
    {"a", "blockquote", "br", "code", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
     "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
)  # fmt: skip
ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "a": frozenset({"href", "rel", "target"}),
    "ol": frozenset({"start"}),
    "code": frozenset({"style"}),
    "pre": frozenset({"style"}),
    "th": frozenset({"style"}),
    "td": frozenset({"style"}),
}
"""`style` is one of ours, or `text-align` as the column rule of a table set it."""

PRE = (
    "margin:2px 0 8px;padding:8px 10px;border-radius:3px;overflow:auto;max-height:40em;white-space:pre;"
    "background:var(--jp-cell-editor-background,rgba(128,128,128,.12));"
    "border:1px solid var(--jp-cell-editor-border-color,rgba(128,128,128,.3))"
)
"""How code and logs stand out, in a light and in a dark theme."""

LONGEST = 200_000
"""Characters. A longer text is shown as it is: nobody reads that much Markdown, and hostile Markdown may be slow."""

_ADDRESS = re.compile(r"[^\s\"'<>\\`]+")


def markdown(text: str) -> str:
    """Markdown from a model as safe HTML."""
    text = sanitize.block(text)
    if len(text) > LONGEST:
        return f"<pre>{html.escape(text)}</pre>"
    try:
        return str(_parser().render(text))
    except RecursionError:  # nested thousands deep; it is shown as it was written
        return f"<pre>{html.escape(text)}</pre>"


def allowed_link(address: str) -> bool:
    """Whether a link may go there: http or https, to a host, and nothing that could end an attribute."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and _ADDRESS.fullmatch(address) is not None


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False, "breaks": False})
    parser.enable(["table", "strikethrough"])
    parser.validateLink = allowed_link  # type: ignore[method-assign, assignment]
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    return parser


def _image(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    # A picture would be fetched by the page as soon as it shows: that tells its server who is reading what.
    token = tokens[index]
    said = token.content or "image"
    return html.escape(f"{said} ({token.attrs.get('src', '')})")


def _link_open(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    address = str(tokens[index].attrs.get("href", ""))
    if not allowed_link(address):
        return "<a>"
    return f'<a href="{html.escape(address)}" rel="noopener noreferrer" target="_blank">'


def _fence(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return f'<pre style="{PRE}"><code style="background:none">{html.escape(tokens[index].content)}</code></pre>\n'
