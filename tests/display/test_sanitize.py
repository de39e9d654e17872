"""Nothing that came from elsewhere steers a terminal or hides what it says."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.display import sanitize
from tests.display import payloads

_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _harmless(text: str, *, besides: str) -> bool:
    others = set(text) - set(besides)
    return not others & _BIDI and all(unicodedata.category(char) not in ("Cc", "Cs") for char in others)


@pytest.mark.parametrize("payload", payloads.TERMINAL)
def test_escapes_leave_nothing_behind(payload: str) -> None:
    shown = sanitize.stream(f"before {payload} after")
    assert _harmless(shown, besides="\n\t\r")
    assert shown.startswith("before ")


@given(st.text(st.characters(), max_size=60))
def test_any_text_is_harmless_afterwards(text: str) -> None:
    assert _harmless(sanitize.stream(text), besides="\n\t\r")
    assert _harmless(sanitize.block(text), besides="\n\t")
    assert _harmless(sanitize.line(text), besides="")
    sanitize.stream(text).encode()


@given(st.text(st.sampled_from("\x1b[]0;m\x07\\P^_Xa\n\x9b\x9d\x9c?1"), max_size=40))
def test_no_escape_appears_when_others_are_taken_out(text: str) -> None:
    once = sanitize.stream(text)
    assert sanitize.stream(once) == once


def test_ordinary_text_stays_as_it_is() -> None:
    text = "naïve café, 漢字, עברית, 👩‍🚀, e\u0301, tab\there\nline"
    assert sanitize.stream(text) is text


def test_an_unfinished_title_swallows_no_more_than_its_line() -> None:
    assert sanitize.block("a\x1b]0;title\nnext") == "a\nnext"


def test_a_carriage_return_ends_a_line_where_lines_are_read() -> None:
    assert sanitize.block("50%\r100%\r\ndone") == "50%\n100%\ndone"
    assert sanitize.stream("50%\r100%") == "50%\r100%"


def test_a_line_stays_one_line() -> None:
    assert sanitize.line("a\nb\r\n\tc\u2028d") == "a b c d"
