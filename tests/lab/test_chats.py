"""Conversations with a real engine: the second turn carries the first, values are saved and loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab import chat
from podlab.chat import Answer, Conversation, Sampling
from podlab.commands.drive import drive
from podlab.errors import BadSecret, ChatError, HttpError, NotFound, StreamBroken
from podlab.lab import chats, endpoints, launch, pods
from podlab.lab.workspace import Workspace
from tests.audiences import Silent
from tests.scripted import SSE, answer, saying, serving

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
QUIET = Sampling(temperature=0.0, max_tokens=40, seed=1)


@pytest.fixture
def tiny(workspace: Workspace) -> Iterator[str]:
    drive(launch.start(workspace, pods.find("local"), launch.Wish("tiny")), Silent())
    yield "tiny"
    drive(endpoints.stop(workspace, "tiny"), Silent())


def say(workspace: Workspace, text: str, sampling: Sampling = QUIET, **how: Any) -> tuple[Answer, Conversation]:
    return drive(chats.say(workspace, None, text, sampling, **how), Silent())


def test_second_turn_carries_the_first(workspace: Workspace, tiny: str) -> None:
    """Proven by the request that is sent and by the prompt tokens the server counted."""
    first, after_first = say(workspace, "Say hello.")
    second, after_second = say(workspace, "What did I just ask you?")
    sent = chat.request(after_second, Sampling())["messages"][:-1]
    assert [turn["content"] for turn in sent] == ["Say hello.", first.message.content, "What did I just ask you?"]
    fresh, _ = say(workspace, "What did I just ask you?", new=True)
    assert first.usage and second.usage and fresh.usage
    assert second.usage.prompt_tokens > fresh.usage.prompt_tokens + first.usage.completion_tokens
    assert len(after_first.messages) == 2


def test_what_an_answer_tells(workspace: Workspace, tiny: str) -> None:
    """Tokens, stop reason and times; --max-tokens and --seed reach the server; pieces make up the answer."""
    audience = Silent()
    answer, _ = drive(chats.say(workspace, None, "Tell me a story.", Sampling(0.0, 5, 1)), audience)
    assert (answer.stop_reason, answer.usage and answer.usage.completion_tokens) == ("length", 5)
    assert "".join(chunk.text for chunk in audience.chunks) == answer.message.content
    assert answer.first_token_s is not None and 0 < answer.first_token_s <= answer.total_s
    drawn = [say(workspace, "Tell me a story.", Sampling(1.5, 40, seed), new=True)[0] for seed in (3, 3, 4)]
    assert drawn[0].message == drawn[1].message != drawn[2].message


def test_system_prompt_begins_anew(workspace: Workspace, tiny: str) -> None:
    """A system prompt stands first in a new conversation."""
    say(workspace, "Say hello.")
    _, conversation = say(workspace, "Say hello.", system="Answer in one word.")
    assert [turn.role for turn in conversation.messages] == ["system", "user", "assistant"]


def test_saved_and_loaded(workspace: Workspace, tiny: str, tmp_path: Path) -> None:
    """A conversation goes on in another process as if it had never been away."""
    _, conversation = say(workspace, "Say hello.")
    path = tmp_path / "talk.json"
    path.write_text(conversation.dump())
    other = Workspace.open()
    assert chats.load(other, path, None) == conversation
    _, longer = drive(chats.say(other, None, "What is podlab?", QUIET), Silent())
    assert longer.messages[:2] == conversation.messages
    other.close()
    with pytest.raises(ChatError):
        path.write_text("{}")
        chats.load(workspace, path, None)
    with pytest.raises(NotFound):
        chats.load(workspace, tmp_path / "none.json", None)


def test_moved_endpoint_is_found_again(workspace: Workspace, tiny: str) -> None:
    """After a restart on another port the next turn finds the endpoint by itself."""
    say(workspace, "Say hello.")
    other = Workspace.open()
    drive(endpoints.stop(other, tiny), Silent())
    drive(launch.start(other, pods.find("local"), launch.Wish("tiny")), Silent())
    other.close()
    answer, conversation = say(workspace, "What is podlab?")
    assert answer.message.content and len(conversation.messages) == 4


def test_infer_tells_which_model_answered(workspace: Workspace, tiny: str) -> None:
    """A name the server does not list is said to be none, and the answer is under the name the server gives."""
    url = endpoints.reach(workspace, tiny).base_url
    audience = Silent()
    _, model = drive(chats.infer(workspace, url, "Say hello.", QUIET, model="wrong"), audience)
    assert model == "tiny"
    assert [notice.level for notice in audience.notices] == ["warning"]
    assert "lists tiny, not wrong" in audience.notices[0].text
    named = Silent()
    assert drive(chats.infer(workspace, url, "Say hello.", QUIET, model="tiny"), named)[1] == "tiny"
    assert named.notices == []


def test_infer_any_server(workspace: Workspace, tiny: str) -> None:
    """One question to a server by its address; its key is found for one of ours, named for others."""
    url = endpoints.reach(workspace, "tiny").base_url
    endpoints.listing(workspace, [pods.find("local")])
    answer, model = drive(chats.infer(workspace, url, "Say hello.", QUIET), Silent())
    assert model == "tiny" and answer.message.content
    with pytest.raises(BadSecret, match="NO_SUCH_KEY"):
        drive(chats.infer(workspace, url, "x", QUIET, key_name="NO_SUCH_KEY"), Silent())


def test_nobody_listens(workspace: Workspace) -> None:
    """A server that is not there is an error that says so; nothing running is one too."""
    with pytest.raises(HttpError, match="did not answer"):
        drive(chats.infer(workspace, "http://127.0.0.1:9/v1", "x", QUIET), Silent())
    with pytest.raises(NotFound, match="No endpoint is running"):
        say(workspace, "Say hello.")


@pytest.mark.parametrize("said", [b"", SSE], ids=["nothing", "only a head"])
def test_a_server_that_took_the_question_is_not_asked_twice(workspace: Workspace, tiny: str, said: bytes) -> None:
    """It may be at work on the answer: the turn fails, and only the next one looks where the endpoint is now."""
    way, workspace.last_chat = endpoints.reach(workspace, tiny), tiny
    with serving(saying(said)) as server:
        workspace.keep_reached(dataclasses.replace(way, base_url=server.url))
        with pytest.raises(StreamBroken):
            say(workspace, "Say hello.")
        assert len(server.requests) == 1
    assert say(workspace, "Say hello.")[0].message.content


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found"])
def test_another_server_in_its_place_sends_us_on(workspace: Workspace, tiny: str, status: str) -> None:
    """Who refuses our key, or does not know our path, is not the endpoint: it is looked up and asked where it is."""
    way, workspace.last_chat = endpoints.reach(workspace, tiny), tiny
    with serving(saying(answer(b"{}", status))) as server:
        workspace.keep_reached(dataclasses.replace(way, base_url=server.url))
        assert say(workspace, "Say hello.")[0].message.content
        assert len(server.requests) == 1


def test_what_cannot_be_read_is_no_conversation(workspace: Workspace, tmp_path: Path) -> None:
    """A path through a file is an error of ours."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ChatError, match="cannot be read"):
        chats.load(workspace, tmp_path / "file" / "talk.json", None)
