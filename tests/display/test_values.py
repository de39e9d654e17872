"""Every kind of value shows, as text and as HTML, whatever stands in its fields."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from podlab.commands.results import (
    ConversationDetail,
    Done,
    EndpointList,
    ModelList,
    Plan,
    PodList,
    Reply,
    SettingList,
    SettingRow,
    Transfer,
)
from podlab.display.html import html
from podlab.display.markdown import ATTRIBUTES, TAGS
from podlab.display.text import renderable, text
from podlab.types import Endpoint, EndpointState, HostSample, Message, Pod, PodState, PodStatus, SshAddress, Usage
from tests.display import payloads, values
from tests.display.allowed import forbidden

NOW = 1_763_690_100.0
_TAGS = TAGS | {"div", "span", "details", "summary", "b"}
_ATTRIBUTES = {
    **ATTRIBUTES, "div": {"class", "style", "aria-busy", "role"}, "span": {"style", "title", "aria-hidden"},
    "table": {"style"}, "th": {"scope", "style"}, "td": {"style"}, "pre": {"tabindex", "style"}, "summary": {"style"},
}  # fmt: skip
GPU1 = PodStatus(
    Pod("gpu1", "2", "ssh", SshAddress("h.example", "me", 2222)), PodState.UNREACHABLE, NOW - 3960, "no answer"
)
LOCAL = PodStatus(Pod("local", "1", "local"), PodState.REACHABLE, NOW, in_use=True)
TINY = Endpoint("u-1", "tiny", "local", "tiny", "llamacpp", EndpointState.READY, url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize("kind", values.KINDS)
def test_nothing_in_any_field_becomes_markup(kind: Any) -> None:
    for payload in payloads.BARE:
        shown = html(values.made(kind, payload), now=NOW)
        assert forbidden(shown, _TAGS, _ATTRIBUTES) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", values.KINDS)
def test_nothing_in_any_field_steers_a_terminal(kind: Any) -> None:
    for payload in payloads.TERMINAL:
        value = values.made(kind, f"a{payload}b")
        for shown in (text(value, now=NOW), html(value, now=NOW)):
            assert not any((ord(char) < 32 and char not in "\n\t") or 0x7F <= ord(char) < 0xA0 for char in shown)
            assert not any(char in shown for char in "\u202e\u2066\ud800")


@pytest.mark.parametrize(
    "kind", [kind for kind in values.KINDS if kind not in (Transfer, Usage, HostSample)]
)  # no text shows
def test_rich_reads_no_markup_in_what_came_from_elsewhere(kind: Any) -> None:
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(renderable(values.made(kind, "[bold]x[/bold]"), now=NOW))
    assert "[bold]x[/bold]" in console.export_text()


def test_pods_as_text() -> None:
    assert text(PodList((LOCAL, GPU1)), now=NOW).splitlines() == [
        "pod    state        in use  provider  where              last seen      detail",
        "local  reachable    in use  local     this computer      just now",
        "gpu1   unreachable          ssh       me@h.example:2222  1 h 6 min ago  no answer",
    ]


def test_a_pod_that_did_not_answer_is_named_beside_an_empty_table() -> None:
    shown = text(EndpointList((), (LOCAL, GPU1)), now=NOW)
    assert (
        shown
        == "No endpoints.\n\npod gpu1 is unreachable, last seen 1 h 6 min ago: no answer; what runs there is not known"
    )


def test_a_reason_that_ends_in_a_full_stop_goes_on_within_the_sentence() -> None:
    silent = replace(GPU1, detail="nothing listens there.")
    assert "nothing listens there; what runs" in text(EndpointList((), (silent,)), now=NOW)


def test_a_state_is_a_word_and_not_only_a_colour() -> None:
    class Visible(HTMLParser):
        words = ""

        def handle_data(self, data: str) -> None:
            self.words += data + " "

    reader = Visible()
    reader.feed(html(PodList((LOCAL, GPU1)), now=NOW))
    assert "reachable" in reader.words
    assert "unreachable" in reader.words


def test_tables_have_scoped_heads_and_say_when_they_were_true() -> None:
    shown = html(EndpointList((TINY,), (LOCAL,)), now=NOW)
    assert re.search(r'<th scope="col"[^>]*>state</th>', shown)
    assert re.search(r'<th scope="row"[^>]*>tiny</th>', shown)
    assert "as of 2025-11-21 01:55:00 UTC" in shown
    assert "as of" not in html(ModelList(()), now=NOW)


def test_colours_are_the_themes_own() -> None:
    shown = html(PodList((LOCAL,)), now=NOW)
    assert "var(--jp-" in shown
    assert "color:#" not in shown.replace(" ", "")


def test_an_answer_as_text_is_what_the_model_wrote() -> None:
    reply = Reply("**hi**", "tiny", "tiny", "stop", "thought", Usage(3, 42), 0.12, 1.2, 38.24)
    assert text(reply) == "**hi**"
    shown = html(reply)
    assert "<strong>hi</strong>" in shown
    assert re.search(r"<details><summary[^>]*>Reasoning \(1 word\)</summary>", shown)
    assert "tiny, 42 tokens, 38.2 tokens/s, first after 120 ms, 1.2 s, ended by itself" in shown
    assert "cut at max_tokens" in html(replace(reply, stop_reason="length"))


def test_a_conversation_says_who_spoke() -> None:
    talk = ConversationDetail("tiny", (Message("user", "hi"), Message("assistant", "ho")))
    assert text(talk) == "user: hi\n\nassistant: ho"
    assert text(ConversationDetail("tiny", ())) == "Nothing has been said to tiny yet."


def test_a_plan_is_numbered_and_a_switch_is_on_or_off() -> None:
    assert text(Plan(("stop it", "start it"))) == "Would, in this order:\n  1. stop it\n  2. start it"
    assert "keeper   on     default  kept" in text(SettingList((SettingRow("keeper", True, "default", "kept"),)))
    assert text(Done("It is done.")) == "It is done."


def test_a_step_that_folds_goes_on_under_its_beginning() -> None:
    console = Console(file=io.StringIO(), width=30)
    console.print(renderable(Plan(("serve: vllm serve /models/one --port 8000",))))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in lines] == [
        "Would, in this order:", "  1. serve: vllm serve", "     /models/one --port 8000",
    ]  # fmt: skip


def test_wide_letters_keep_the_columns() -> None:
    rows = text(PodList((LOCAL, PodStatus(Pod("漢字", "3", "local"), PodState.UNKNOWN))), now=NOW).splitlines()
    assert rows[2].startswith("漢字   unknown")
