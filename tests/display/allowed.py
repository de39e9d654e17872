"""Reads HTML the way a page does and says what in it is more than our renderer may write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser

from podlab.display.markdown import ATTRIBUTES, TAGS, allowed_link

_STYLES = re.compile(r"(?:[a-z-]+:[-a-z0-9.%# (),]+;?)*")
"""Declarations of plain values. An address in one would be fetched: `url(` and `image(` are looked for, too."""


class _Reader(HTMLParser):
    def __init__(self, tags: frozenset[str], attributes: Mapping[str, frozenset[str]]) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes = tags, attributes
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.tags:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if name not in self.attributes.get(tag, frozenset()):
                self.found.append(f"<{tag} {name}>")
            if name == "href" and not allowed_link(value or ""):
                self.found.append(f"<{tag} href={value}>")
            if name == "style" and not _harmless_style(value or ""):
                self.found.append(f"<{tag} style={value}>")

    def handle_comment(self, data: str) -> None:
        self.found.append("<!-- -->")

    def handle_decl(self, decl: str) -> None:
        self.found.append("<!...>")

    def handle_pi(self, data: str) -> None:
        self.found.append("<?...>")

    def unknown_decl(self, data: str) -> None:
        self.found.append("<![...]>")


def _harmless_style(style: str) -> bool:
    return _STYLES.fullmatch(style) is not None and not re.search(r"(url|image|expression|attr)\s*\(|behavio", style)


def forbidden(
    page: str, tags: frozenset[str] = TAGS, attributes: Mapping[str, frozenset[str]] = ATTRIBUTES
) -> list[str]:
    """Tags, attributes and addresses that are not allowed; [] when the page is harmless."""
    reader = _Reader(tags, attributes)
    reader.feed(page)
    reader.close()
    return reader.found
