"""A conversation with a real HTTP server that answers as engines do, and as they should not."""

from __future__ import annotations

import json
import queue
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podlab.chat import Answer, Conversation, Sampling, ask, request
from podlab.errors import ChatError, HttpError, StreamBroken
from podlab.events import Chunk
from podlab.http import Http
from podlab.types import Message, Usage
from tests.scripted import SSE, Script, answer, saying, serving

CONVERSATION = Conversation("tiny", "tiny").saying("Say hello.")


def chunk(content: str | None = None, *, stop: str | None = None, **delta: Any) -> dict[str, Any]:
    if content is not None:
        delta["content"] = content
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": stop}]}


def stream(*documents: dict[str, Any] | str, done: bool = True) -> bytes:
    texts = [text if isinstance(text, str) else json.dumps(text) for text in documents] + ["[DONE]"] * done
    return SSE + "".join(f"data: {text}\n\n" for text in texts).encode()


USAGE = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2}}
HELLO = stream(chunk(role="assistant"), chunk("Hel"), chunk("lo."), chunk(stop="stop"), USAGE)


def asked(script: Script, conversation: Conversation = CONVERSATION, **more: Any) -> tuple[list[Chunk], Answer]:
    """All chunks of the answer, and the answer."""
    with serving(script) as server:
        return drained(ask(Http(server.url), conversation, Sampling(**more)))


def drained(work: Any) -> tuple[list[Chunk], Answer]:
    chunks = []
    while True:
        try:
            chunks.append(next(work))
        except StopIteration as end:
            return chunks, end.value


def test_an_answer() -> None:
    """Text comes in pieces as it was sent; the answer has it whole, with its stop reason, its usage and its times."""
    chunks, found = asked(saying(HELLO))
    assert chunks == [Chunk("Hel", "answer"), Chunk("lo.", "answer")]
    assert found.message == Message("assistant", "Hello.")
    assert (found.stop_reason, found.usage) == ("stop", Usage(11, 2))
    assert found.first_token_s is not None
    assert 0 < found.first_token_s <= found.total_s
    assert found.tokens_per_second is not None


def test_the_second_turn_carries_the_first() -> None:
    """What is sent for the second turn holds the system prompt, the first question and the first answer, in order."""
    with serving(saying(HELLO)) as server:
        http = Http(server.url)
        first = Conversation("tiny", "the-model", (Message("system", "Be brief."),)).saying("One?")
        _, found = drained(ask(http, first, Sampling()))
        second = first.answered(found.message).saying("Two? é\U0001f600")
        drained(ask(http, second, Sampling(temperature=0.0, max_tokens=5, seed=7)))
    bodies = [json.loads(sent.partition(b"\r\n\r\n")[2]) for sent in server.requests]
    assert bodies[0] == {
        "model": "the-model", "stream": True, "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}],
    }  # fmt: skip
    assert bodies[1]["messages"] == [
        *bodies[0]["messages"], {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Two? é\U0001f600"},
    ]  # fmt: skip
    assert [bodies[1][name] for name in ("temperature", "max_tokens", "seed")] == [0.0, 5, 7]
    assert bodies[1] == request(second, Sampling(0.0, 5, 7))
    assert all(sent.startswith(b"POST /v1/chat/completions ") for sent in server.requests)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning(field: str) -> None:
    """Reasoning arrives as such under either name, is kept beside the text, and is not sent back."""
    script = saying(stream(chunk(**{field: "Hm"}), chunk(**{field: "m."}), chunk("Yes."), chunk("", stop="stop")))
    chunks, found = asked(script)
    assert chunks == [Chunk("Hm", "reasoning"), Chunk("m.", "reasoning"), Chunk("Yes.", "answer")]
    assert found.message == Message("assistant", "Yes.", "Hmm.")
    assert "Hmm" not in json.dumps(request(CONVERSATION.answered(found.message), Sampling()))


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_stop_reasons(reason: str) -> None:
    """Why it stopped is as the server said it, and usage it did not give is None."""
    _, found = asked(saying(stream(chunk("x", stop=reason))))
    assert (found.stop_reason, found.usage, found.tokens_per_second) == (reason, None, None)


@pytest.mark.parametrize("end", [b"", b": untidy"])
def test_no_done(end: bytes) -> None:
    """A stream without [DONE] that gave a finish reason is a whole answer."""
    chunks, found = asked(saying(stream(chunk("Hi"), chunk(stop="stop"), done=False) + end))
    assert (len(chunks), found.message.content) == (1, "Hi")


def test_an_untidy_end() -> None:
    """A connection that broke after the finish reason took nothing away from the answer."""
    head = SSE.replace(b"Connection: close", b"Content-Length: 9999")
    _, found = asked(saying(head + stream(chunk("Hi"), chunk(stop="stop"), done=False)[len(SSE) :]))
    assert (found.message.content, found.stop_reason) == ("Hi", "stop")


def broken(script: Script) -> StreamBroken:
    with pytest.raises(StreamBroken) as caught:
        asked(script)
    return caught.value


@pytest.mark.parametrize("done", [True, False])
def test_no_finish_reason(done: bool) -> None:
    """A stream that ends without one stopped before its end; what had arrived is on the error."""
    assert broken(saying(stream(chunk("Hel"), chunk("lo"), done=done))).partial == "Hello"


def test_a_cut_connection() -> None:
    """A connection that ends in the middle carries what had arrived."""
    head = SSE.replace(b"Connection: close", b"Content-Length: 9999")
    error = broken(saying(head + stream(chunk("Hel"), done=False)[len(SSE) :]))
    assert error.partial == "Hel"
    assert "broke off" in str(error)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"error": {"message": "out of memory", "code": 500}}', "gave up in mid-answer: out of memory"),
        ('{"error": "plain"}', "plain"), ("[1]", "[1]"), ('"text"', "text"), ("null", "None"), ("5", "5"),
        ("{garbage", "'{garbage'"), ("", "''"), ("[" * 90_000, "'[[["), ('{"choices": 5}', "mid-answer"),
        ('{"choices": [null]}', "mid-answer"), ('{"choices": ["x"]}', "mid-answer"), ('{"usage": 5}', "mid-answer"),
        ('{"choices": [{"delta": "x"}]}', "mid-answer"), ('{"choices": [{"delta": {"content": 5}}]}', "mid-answer"),
        ('{"choices": [{"delta": {"content": [{"type": "text"}]}}]}', "mid-answer"),
        ('{"usage": {"prompt_tokens": "many"}}', "mid-answer"), ('{"usage": {"prompt_tokens": [1]}}', "mid-answer"),
    ],
)  # fmt: skip
def test_nonsense_in_the_middle(data: str, said: str) -> None:
    """An error object, garbage and documents of the wrong shape give one error of ours with what had arrived."""
    error = broken(saying(stream(chunk("Hel"), data, chunk("lo", stop="stop"))))
    assert error.partial == "Hel"
    assert said in str(error)
    assert len(str(error)) < 400


def test_repeated_and_odd_chunks_do_no_harm() -> None:
    """A chunk twice, nulls, unknown fields, an unknown event and several choices are taken as they come."""
    odd = {"id": None, "choices": None, "usage": None, "timings": {"x": 1}}
    nulls = {"choices": [{"delta": None, "finish_reason": None}, {"delta": {"content": None, "reasoning": None}}]}
    stops = chunk(stop="stop"), chunk(stop="stop")
    _, found = asked(saying(stream(chunk("a"), chunk("a"), odd, nulls, {}, USAGE, USAGE, *stops)))
    assert (found.message.content, found.usage) == ("aa", Usage(11, 2))


def test_half_characters_are_mended() -> None:
    """Halves of a character that a server escapes are joined, or replaced, so that the text can be shown and saved."""
    _, found = asked(saying(stream(chunk("\ud83d\ude00 \ud83d", stop="stop"))))
    assert found.message.content == "\U0001f600 \ufffd"
    assert CONVERSATION.answered(found.message).dump().encode()


def test_a_refusal() -> None:
    """A server that refuses the request is an HttpError with its status and its reason."""
    body = b'{"error": {"message": "the context is full"}}'
    with pytest.raises(HttpError, match="the context is full") as caught:
        asked(saying(answer(body, "400 Bad Request")))
    assert caught.value.status == 400


def test_nobody_there() -> None:
    """A server that is gone broke the stream before its first word."""
    with serving(saying(b"")) as server:
        pass
    with pytest.raises(StreamBroken) as caught:
        drained(ask(Http(server.url), CONVERSATION, Sampling()))
    assert caught.value.partial == ""
    assert caught.value.hint


def test_stopping_early_closes_the_connection() -> None:
    """Closing the generator, or an interrupt in it, ends the connection, and with it what the server is doing."""

    def endless(connection: socket.socket, sent: bytes) -> None:
        connection.sendall(SSE)
        while True:
            connection.sendall(stream(chunk("x"), done=False)[len(SSE) :])

    with serving(endless) as server:
        work = ask(Http(server.url), CONVERSATION, Sampling())
        assert next(work) == Chunk("x", "answer")
        work.close()
        assert server.ended.get(timeout=3) == "gone"
        work = ask(Http(server.url), CONVERSATION, Sampling())
        next(work)
        with pytest.raises(KeyboardInterrupt):
            work.throw(KeyboardInterrupt())
        assert server.ended.get(timeout=3) == "gone"


def test_chunks_come_while_the_server_still_writes() -> None:
    """The first piece is there before the second is sent."""
    go_on: queue.SimpleQueue[None] = queue.SimpleQueue()

    def script(connection: socket.socket, sent: bytes) -> None:
        connection.sendall(stream(chunk("a"), done=False))
        go_on.get(timeout=5)
        connection.sendall(stream(chunk("b", stop="stop"))[len(SSE) :])

    with serving(script) as server:
        work = ask(Http(server.url), CONVERSATION, Sampling())
        assert next(work).text == "a"
        go_on.put(None)
        chunks, found = drained(work)
    assert found.message.content == "ab"
    assert len(chunks) == 1


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_nothing_to_say(prompt: str) -> None:
    """An empty prompt is refused before anything is sent."""
    with pytest.raises(ChatError, match="nothing to say"):
        CONVERSATION.saying(prompt)


texts = st.text()
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts, texts)


@hypothesis_settings(deadline=None)
@given(st.builds(Conversation, texts, texts, st.lists(messages, max_size=5).map(tuple)))
def test_saved_and_loaded(conversation: Conversation) -> None:
    """Any conversation is the same after it was saved and loaded, through bytes."""
    assert Conversation.load(conversation.dump().encode().decode()) == conversation


BAD = [
    "", "{", "[]", "null",
    "5", '"text"', "{}", '{"format": "podlab.conversation/2"}', '{"format": ["a"]}', "[" * 100_000,
    '{"format": "podlab.conversation/1"}', '{"format": "podlab.conversation/1", "messages": 5}',
    '{"format": "podlab.conversation/1", "messages": [], "endpoint": "a"}',
    *(
        json.dumps({"format": "podlab.conversation/1", "endpoint": "a", "model": "b", "messages": [message]})
        for message in (None, "x", {}, {"role": "tool", "content": "x"}, {"role": "user"},
                        {"role": "user", "content": 5}, {"role": ["user"], "content": "x"})
    ),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_no_conversation_is(text: str) -> None:
    """Files of other kinds, other versions and other shapes give a ChatError with a way on."""
    with pytest.raises(ChatError) as caught:
        Conversation.load(text)
    assert caught.value.hint


@given(st.text())
def test_loading_raises_nothing_else(text: str) -> None:
    """Any text is a conversation or a ChatError."""
    with pytest.raises(ChatError):
        Conversation.load(text)


@pytest.mark.parametrize(
    ("usage", "first_s", "total_s", "expected"),
    [
        (Usage(5, 11), 1.0, 3.0, 5.0), (None, 1.0, 3.0, None), (Usage(5, 11), None, 3.0, None),
        (Usage(5, 1), 1.0, 3.0, None),
        (Usage(5, 10), 2.0, 2.0, 5.0),
    ],
)  # fmt: skip
def test_tokens_per_second(usage: Usage | None, first_s: float | None, total_s: float, expected: float | None) -> None:
    """Tokens after the first over the time since it, all over the whole time for one burst, None if one is missing."""
    assert Answer(Message("assistant", ""), "stop", usage, first_s, total_s).tokens_per_second == expected
