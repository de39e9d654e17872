"""A magic's line becomes words; variables are put in by name and nothing else is touched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.errors import BadArgument
from podlab.notebook import words

_VARIABLES = {"pod": "gpu 1", "n": 3, "x": "{n}"}


@pytest.mark.parametrize(
    "word, expected",
    [
        ("{pod}", "gpu 1"),
        ("--on={pod}", "--on=gpu 1"),
        ("{n}{n}", "33"),
        ("{x}", "{n}"),
        ("{unknown}", "{unknown}"),
        ("{{n}}", "{{n}}"),
        ("{{ n }}", "{{ n }}"),
        ("{n + 1}", "{n + 1}"),
        ("{n.real}", "{n.real}"),
        ("{n!r}", "{n!r}"),
        ("$n ${n}", "$n $3"),
        ('{"n": 1}', '{"n": 1}'),
        ('{"a": {"b": []}}', '{"a": {"b": []}}'),
        ("{}", "{}"),
        ("{", "{"),
    ],
)
def test_only_the_name_of_a_variable_between_single_braces_counts(word: str, expected: str) -> None:
    assert words.expand(word, _VARIABLES) == expected


_TEXT = st.text(st.characters(exclude_characters="{}"))


@given(st.recursive(st.none() | st.integers() | _TEXT, lambda inner: st.dictionaries(_TEXT, inner), max_leaves=8))
def test_json_survives(value: object) -> None:
    text = json.dumps(value, separators=(",", ":"))
    assert words.expand(text, {"a": 1, "null": 2, "b": 3}) == text


def test_a_value_with_spaces_stays_one_word() -> None:
    given = words.split("run --on {pod} ls")
    assert [words.expand(word, _VARIABLES) for word in given] == ["run", "--on", "gpu 1", "ls"]


def test_an_open_quote_is_named() -> None:
    with pytest.raises(BadArgument, match="closing quotation") as caught:
        words.split("it's")
    assert caught.value.hint


@pytest.mark.parametrize(
    "line, expected",
    [
        ("tiny what's up, don't you know?", ["tiny", "what's", "up,", "don't", "you", "know?"]),
        ('tiny "Say hello."', ["tiny", "Say hello."]),
        ('--system "You are terse." hi', ["--system", "You are terse.", "hi"]),
        ('--system="You are terse." hi', ["--system=You are terse.", "hi"]),
        ('say "hi there" to them', ["say", '"hi there"', "to", "them"]),
        ("what does ( mean", ["what", "does", "(", "mean"]),
        ("'", ["'"]),
        ("", []),
    ],
)
def test_what_is_said_keeps_its_apostrophes(line: str, expected: list[str]) -> None:
    assert words.split_prose(line) == expected


@pytest.mark.parametrize(
    "line, rest, silent",
    [
        ("list ;", "list ", True),
        ("list;", "list", True),
        ("list", None, False),
        (r"run find . -exec ls {} \;", None, False),
        ("run sh -c 'a;'", None, False),
    ],
)
def test_a_semicolon_at_the_end_silences(line: str, rest: str | None, silent: bool) -> None:
    assert words.silenced(line) == (line if rest is None else rest, silent)
