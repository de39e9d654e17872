"""A model's words become a page that can do nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podlab.display.html import prose_html
from podlab.display.markdown import LONGEST, allowed_link, markdown
from tests.display import payloads
from tests.display.allowed import forbidden


def test_there_are_more_than_a_thousand_payloads() -> None:
    assert len(payloads.MARKDOWN) > 1000


@pytest.mark.parametrize("part", range(8))
def test_no_payload_survives_whole_or_cut_anywhere(part: int) -> None:
    for payload in payloads.MARKDOWN[part::8]:
        for end in range(1, len(payload) + 1, max(1, len(payload) // 12)):
            assert forbidden(markdown(payload[:end])) == [], payload[:end]
        assert forbidden(markdown(payload)) == [], payload


@pytest.mark.parametrize("payload", payloads.BARE)
def test_every_cut_of_a_bare_payload_is_harmless(payload: str) -> None:
    for end in range(len(payload) + 1):
        assert forbidden(markdown(payload[:end])) == [], payload[:end]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*payloads.BARE, *"\n`[]()*|>-", "\n\n", "```", "]("]), max_size=8))
def test_no_mixture_of_payloads_survives(parts: list[str]) -> None:
    assert forbidden(markdown("".join(parts))) == []


def test_the_allowlist_reader_sees_what_it_should() -> None:
    for page in ("<script>", "<p onclick=x>", "<a href='javascript:x'>", "<img>", "<!-- -->", "<p style='color:red'>",
                 "<td style='background:url(x)'>", "<td style='a:b;\\75rl(x)'>"):  # fmt: skip
        assert forbidden(page), page


def test_a_picture_is_its_words_and_its_address() -> None:
    assert markdown("![a cat](http://x.example/cat.png)") == "<p>a cat (http://x.example/cat.png)</p>\n"


def test_a_link_goes_out_alone() -> None:
    shown = markdown("[docs](https://x.example/a?b=1&c=2)")
    assert 'href="https://x.example/a?b=1&amp;c=2" rel="noopener noreferrer" target="_blank">docs</a>' in shown


@pytest.mark.parametrize(
    "address",
    [
        "javascript:x",
        "data:text/html,x",
        "//host/x",
        "/x",
        "x",
        "mailto:a@b",
        "http://",
        "http:x",
        "http://a b",
        'http://a"b',
    ],
)
def test_other_addresses_are_no_links(address: str) -> None:
    assert not allowed_link(address)


def test_ordinary_markdown_looks_as_meant() -> None:
    text = "# Head\n\n**bold** and `code`\n\n- one\n- two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\nx < 1\n```\n"
    shown = markdown(text)
    for part in ("<h1>Head</h1>", "<strong>bold</strong>", "<code>code</code>", "<li>one</li>", "<td>1</td>",
                 '<td style="text-align:right">2</td>', ">x &lt; 1\n</code></pre>"):  # fmt: skip
        assert part in shown


def test_an_open_code_block_is_code_already() -> None:
    assert markdown("```python\nfor x in").endswith(">for x in</code></pre>\n")


def test_a_longer_text_than_anybody_reads_is_shown_as_it_is() -> None:
    shown = markdown("# a\n" * LONGEST)
    assert shown.startswith("<pre>#")
    assert forbidden(shown) == []


@pytest.mark.parametrize("piece", ["[", "[a](", "> ", "*a ", "`a", "![", "_", "- ", "<", "&", "|\n", "#" * 7, "~~"])
def test_deep_or_repeated_markdown_is_harmless(piece: str) -> None:
    assert forbidden(markdown(piece * 3000)) == []


def test_mathematics_is_not_typeset() -> None:
    # MathJax has \href, which makes links to anywhere out of text.
    shown = prose_html("$$\\href{javascript:alert(1)}{x}$$")
    assert re.search(r'class="[^"]*\bmathjax_ignore\b', shown)
    assert re.search(r'class="[^"]*\btex2jax_ignore\b', shown)
