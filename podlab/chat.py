"""One conversation with one endpoint: yields pieces of the answer, prints nothing.

A conversation is a value: asking makes a longer one. What is sent is `request(...)`, so a test can read that the
second turn carries the first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from podlab.errors import ChatError, HttpError, StreamBroken
from podlab.events import Chunk
from podlab.http import Http
from podlab.types import Message, Usage

FORMAT = "podlab.conversation/1"
BURST_S = 0.02
SAY_WHERE = 'Write it in the cell below %%chat; in a terminal: podlab chat "Say hello."'
SAVED_WHERE = "Give a file that %chat save wrote, or /save in the terminal's podlab chat."


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. None leaves it to the server."""

    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """A finished answer. Seconds count from the request; `tokens_per_second` counts after the first token."""

    message: Message
    stop_reason: str
    usage: Usage | None
    first_token_s: float | None
    total_s: float
    model: str = ""
    """What the server calls the model that answered; empty when it did not say."""

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first, over the time since the first; None when either is not known.

        An answer that arrived in one burst says nothing of the pace within it: then all tokens over the whole time.
        """
        if self.usage is None or self.first_token_s is None or self.usage.completion_tokens < 2:
            return None
        since_first_s = self.total_s - self.first_token_s
        if since_first_s < BURST_S:
            return self.usage.completion_tokens / self.total_s
        return (self.usage.completion_tokens - 1) / since_first_s


@dataclass(frozen=True)
class Conversation:
    """Messages so far with `endpoint`; `model` is the name its server knows."""

    endpoint: str
    model: str
    messages: tuple[Message, ...] = ()

    def saying(self, prompt: str) -> Conversation:
        """The conversation with one more thing said by the user."""
        if not prompt.strip():
            raise ChatError("There is nothing to say.", hint=SAY_WHERE)
        return replace(self, messages=(*self.messages, Message("user", prompt)))

    def answered(self, message: Message) -> Conversation:
        """The conversation with the assistant's turn."""
        return replace(self, messages=(*self.messages, message))

    def dump(self) -> str:
        """As JSON text, for a file."""
        return _storable(json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False, indent=2)) + "\n"

    @classmethod
    def load(cls, text: str) -> Conversation:
        """From JSON text. Raises ChatError naming what is wrong with it."""
        try:
            fields = json.loads(text)
            if fields["format"] != FORMAT:
                raise ChatError(f"This is {fields['format']!r}, not {FORMAT}.", hint="Save it again with this version.")
            messages = []
            for message in fields["messages"]:
                if message["role"] not in ("system", "user", "assistant") or not isinstance(message["content"], str):
                    raise ValueError(f"a message of role {message['role']!r}")
                messages.append(Message(message["role"], message["content"], str(message.get("reasoning") or "")))
            return cls(str(fields["endpoint"]), str(fields["model"]), tuple(messages))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ChatError(f"This is not a saved conversation: {error}", hint=SAVED_WHERE) from error


def request(conversation: Conversation, sampling: Sampling) -> dict[str, Any]:
    """The body that is sent for the next answer: every earlier turn, and what was just said."""
    body: dict[str, Any] = {
        "model": conversation.model,
        "messages": [{"role": message.role, "content": message.content} for message in conversation.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body | {name: value for name, value in asdict(sampling).items() if value is not None}


def ask(http: Http, conversation: Conversation, sampling: Sampling) -> Generator[Chunk, None, Answer]:
    """Stream the answer to the conversation's last turn; returns it whole.

    Closing the generator (Ctrl-C, a stop button) closes the connection, and the server stops generating. Raises
    StreamBroken with what had arrived, or HttpError when the server refused the request.
    """
    began = time.monotonic()
    heard = _Heard()
    events = http.events("/chat/completions", request(conversation, sampling))
    try:
        for chunk in _chunks(events, heard):
            if heard.first_token_s is None:
                heard.first_token_s = time.monotonic() - began
            yield chunk
    except HttpError as error:
        if error.status:
            raise
        if not heard.stop_reason:  # else all of it had arrived, and only the connection's end was untidy
            raise StreamBroken(
                f"The answer broke off: {error.message}", partial=heard.text, sent=error.sent,
                hint="See: podlab model list",
            ) from error  # fmt: skip
    finally:
        events.close()
    if not heard.stop_reason:
        raise StreamBroken("The answer stopped before its end.", partial=heard.text, hint="See: podlab model list")
    message = Message("assistant", heard.text, heard.reasoning)
    total_s = time.monotonic() - began
    return Answer(message, heard.stop_reason, heard.usage, heard.first_token_s, total_s, heard.model)


@dataclass
class _Heard:
    """What has arrived so far."""

    text: str = ""
    reasoning: str = ""
    stop_reason: str = ""
    usage: Usage | None = None
    first_token_s: float | None = None
    model: str = ""


def _chunks(events: Iterator[str], heard: _Heard) -> Iterator[Chunk]:
    """The pieces in a stream of `chat.completion.chunk` documents, noted in `heard`.

    Reasoning comes as `reasoning_content` (llama.cpp, older vLLM, DeepSeek) or `reasoning` (vLLM since 0.10).
    """
    for data in events:
        if data == "[DONE]":
            return
        document = _document(data, heard)
        try:
            pieces = _pieces(document, heard)
        except (AttributeError, TypeError, ValueError) as error:
            raise _nonsense(data, heard) from error
        for piece in pieces:
            if piece.stream == "answer":
                heard.text += piece.text
            else:
                heard.reasoning += piece.text
            yield piece


def _pieces(document: dict[str, Any], heard: _Heard) -> list[Chunk]:
    """What one document adds. Raises AttributeError, TypeError or ValueError when it is no `chat.completion.chunk`."""
    if isinstance(named := document.get("model"), str):
        heard.model = _storable(named[:200])
    if usage := document.get("usage"):
        heard.usage = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    pieces = []
    for choice in document.get("choices") or ():
        delta = choice.get("delta") or {}
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            pieces.append(Chunk(_storable(thought), "reasoning"))
        if said := delta.get("content"):
            pieces.append(Chunk(_storable(said), "answer"))
        if reason := choice.get("finish_reason"):
            heard.stop_reason = str(reason)
    return pieces


def _storable(text: str) -> str:
    """Text with the halves of characters that JSON can carry and UTF-8 cannot joined, or replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _nonsense(data: str, heard: _Heard) -> StreamBroken:
    return StreamBroken(f"The server sent {data[:60]!r} in mid-answer.", partial=heard.text)


def _document(data: str, heard: _Heard) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _nonsense(data, heard) from error
    if not isinstance(document, dict) or document.get("error"):
        problem = document.get("error") if isinstance(document, dict) else document
        said = problem.get("message") if isinstance(problem, dict) else problem
        raise StreamBroken(f"The server gave up in mid-answer: {str(said)[:300]}", partial=heard.text)
    return document
