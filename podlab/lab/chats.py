"""Conversations with endpoints of this workspace, and one question to any server."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from podlab import secrets
from podlab.chat import SAVED_WHERE, Answer, Conversation, Sampling, ask
from podlab.errors import BadArgument, BadSecret, ChatError, HttpError, NotFound, StreamBroken
from podlab.events import Chunk, Notice, Work
from podlab.http import Http
from podlab.lab import endpoints, pods
from podlab.types import Message

if TYPE_CHECKING:
    from podlab.lab.workspace import Reached, Workspace
    from podlab.secrets import Secret

T = TypeVar("T")


def say(
    workspace: Workspace,
    name: str | None,
    prompt: str,
    sampling: Sampling,
    *,
    system: str | None = None,
    new: bool = False,
) -> Work[tuple[Answer, Conversation]]:
    """Say something to an endpoint and stream its answer; the conversation goes on from the last turn with it.

    What `sampling` leaves open is as the settings say. What arrived before an interrupt or a broken stream stays in
    the conversation.
    """
    reached = _reached(workspace, name)
    name = reached.endpoint.name
    conversation = workspace.conversations.get(name)
    if conversation is None or new or system is not None:
        prompt_of_system = workspace.value("chat.system") if system is None else system
        opening = (Message("system", prompt_of_system),) if prompt_of_system else ()
        conversation = Conversation(name, reached.model, opening)
    conversation = dataclasses.replace(conversation, model=reached.model).saying(prompt)
    sampling = dataclasses.replace(
        sampling,
        temperature=_given(sampling.temperature, workspace.value("chat.temperature")),
        max_tokens=_given(sampling.max_tokens, workspace.value("chat.max_tokens")),
    )
    workspace.last_chat = name
    heard: list[Chunk] = []
    try:
        answer = yield from _ask_again_if_moved(workspace, reached, conversation, sampling, heard)
    except (StreamBroken, KeyboardInterrupt, GeneratorExit):
        if heard:
            said = {stream: "".join(c.text for c in heard if c.stream == stream) for stream in ("answer", "reasoning")}
            kept = conversation.answered(Message("assistant", said["answer"], said["reasoning"]))
            workspace.conversations[name] = kept
        raise
    conversation = conversation.answered(answer.message)
    workspace.conversations[name] = conversation
    return answer, conversation


def current(workspace: Workspace, name: str | None) -> Conversation:
    """The conversation that is meant: with `name`, else the last one spoken in. Raises NotFound."""
    wanted = name or workspace.last_chat
    if wanted is None or wanted not in workspace.conversations:
        raise NotFound(
            f"There is no conversation{f' with {wanted!r}' if wanted else ''} here.", hint="Say something first."
        )
    return workspace.conversations[wanted]


def is_saved(path: Path) -> bool:
    """Whether a file is a saved conversation, which another one may replace."""
    try:
        Conversation.load(path.read_text("utf-8"))
    except (ChatError, OSError, UnicodeDecodeError):
        return False
    return True


def load(workspace: Workspace, path: Path, name: str | None) -> Conversation:
    """Take up a saved conversation, with the endpoint it was with or with `name`. Raises NotFound or ChatError."""
    try:
        conversation = Conversation.load(path.read_text("utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"There is no file {path}.", hint=SAVED_WHERE) from None
    except UnicodeDecodeError as error:
        raise ChatError(f"{path} is not a saved conversation.", hint=SAVED_WHERE) from error
    except OSError as error:
        raise ChatError(f"{path} cannot be read: {error.strerror}.", hint=SAVED_WHERE) from error
    if name:
        conversation = dataclasses.replace(conversation, endpoint=name)
    workspace.conversations[conversation.endpoint] = conversation
    workspace.last_chat = conversation.endpoint
    return conversation


def infer(
    workspace: Workspace,
    url: str,
    prompt: str,
    sampling: Sampling,
    *,
    model: str | None = None,
    key_name: str | None = None,
) -> Work[tuple[Answer, str]]:
    """Ask any OpenAI-compatible server one thing; `key_name` names the secret that holds its key.

    An endpoint of ours needs no name: its own key is used. Returns the answer, and the model that gave it as the
    server calls it.
    """
    key = secrets.find(key_name) if key_name else _own_key(workspace, url)
    if key_name and key is None:
        raise BadSecret(f"There is no secret {key_name!r}.", hint=f"Keep it first: podlab secret set {key_name}")
    http = Http(url, key=key)
    try:
        if model is None:
            model = _first_model(http)
        elif (listed := _listed(http)) and model not in listed:  # some know a model by more names than they list
            yield Notice(f"{http.base_url} lists {', '.join(listed[:5])}, not {model}.", "warning")
        conversation = Conversation(url, model).saying(prompt)
        answer = yield from ask(http, conversation, sampling)
    finally:
        http.close()
    return answer, answer.model or model


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _first_model(http: Http) -> str:
    names = _names(http.get_json("/models"))
    if not names:
        raise BadArgument(f"{http.base_url} lists no model.", hint="Name it with --model")
    return names[0]


def _listed(http: Http) -> list[str]:
    """The models a server lists; none where it has no such list."""
    try:
        return _names(http.get_json("/models"))
    except HttpError as error:
        if not error.status:  # it does not answer at all
            raise
        return []


def _names(listed: Any) -> list[str]:
    try:
        return [str(model["id"]) for model in listed["data"]]
    except (KeyError, TypeError):
        return []


def _own_key(workspace: Workspace, url: str) -> Secret | None:
    """The key of our endpoint at that address, if it is one of ours."""
    for pod in pods.all_pods():
        for endpoint in workspace.store.endpoints_of(pod.id):
            if endpoint.url == url.rstrip("/"):
                return workspace.endpoint_key(pod, endpoint.id)
    return None


def _reached(workspace: Workspace, name: str | None) -> Reached:
    """The way to the endpoint that is meant: the one named, else the one spoken to last, else the only one."""
    wanted = name or workspace.last_chat
    known = workspace.reached(wanted) if wanted else None
    return known or endpoints.reach(workspace, wanted)


def _ask_again_if_moved(
    workspace: Workspace, reached: Reached, conversation: Conversation, sampling: Sampling, heard: list[Chunk]
) -> Work[Answer]:
    """Ask; when nobody took the question, look where the endpoint is now and ask there, once.

    An address that was kept from the last turn may be of an endpoint that was restarted, or of a tunnel that is gone:
    then no connection can be made, or another server refuses our key or our path. After anything else the server may
    be at work on an answer already, and asking again would make it work twice; only the next turn looks anew.
    """
    try:
        return (yield from _ask(workspace.http(reached), conversation, sampling, heard))
    except (HttpError, StreamBroken) as error:
        moved = not error.sent or (isinstance(error, HttpError) and error.status in (401, 404))
        if moved or isinstance(error, StreamBroken):
            workspace.forget_reached(reached.endpoint.id)
        if heard or not moved:
            raise
        found = endpoints.reach(workspace, reached.endpoint.name)
        return (yield from _ask(workspace.http(found), conversation, sampling, heard))


def _ask(
    http: Http, conversation: Conversation, sampling: Sampling, heard: list[Chunk]
) -> Generator[Chunk, None, Answer]:
    answering = ask(http, conversation, sampling)
    try:
        while True:
            try:
                chunk = next(answering)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            heard.append(chunk)
            yield chunk
    finally:
        answering.close()
