"""`chat` and `infer`: speak with an endpoint, or with any OpenAI-compatible server."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from podlab.commands.results import ConversationDetail, Done, Outcome, Reply
from podlab.errors import BadArgument
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.chat import Answer, Sampling
    from podlab.lab.workspace import Workspace

INFER_TOKENS = 50
"""What `infer` asks for at most unless --max-tokens says otherwise."""


def _reply(answer: Answer, endpoint: str, model: str) -> Reply:
    return Reply(
        answer.message.content, endpoint, model, answer.stop_reason, answer.message.reasoning, answer.usage,
        answer.first_token_s, answer.total_s, answer.tokens_per_second,
    )  # fmt: skip


def _sampling(args: Namespace) -> Sampling:
    from podlab.chat import Sampling

    return Sampling(args.temperature, args.max_tokens, args.seed)


def say(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.chat import SAY_WHERE
    from podlab.lab import chats, known

    name, words = args.name, list(args.prompt or ())
    if name is not None and args.cell is None and name not in known.names(workspace, "endpoints"):
        name, words = None, [name, *words]  # a first word that is no endpoint's name belongs to what is said
    prompt = args.cell if args.cell is not None else " ".join(words)
    if not prompt.strip():
        raise BadArgument("There is nothing to say.", hint=SAY_WHERE)
    answer, conversation = yield from chats.say(
        workspace, name, prompt, _sampling(args), system=args.system, new=args.new
    )
    return Outcome(_reply(answer, conversation.endpoint, conversation.model))


def show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import chats

    yield from ()
    conversation = chats.current(workspace, args.name)
    return Outcome(ConversationDetail(conversation.endpoint, conversation.messages))


def reset(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import chats

    yield from ()
    name = chats.current(workspace, args.name).endpoint
    del workspace.conversations[name]
    return Outcome(Done(f"The conversation with {name} is forgotten.", {"conversation": name}))


def save(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.durable import replace_file
    from podlab.lab import chats

    yield from ()
    conversation = chats.current(workspace, args.name)
    path = Path(args.file).expanduser()
    if not path.parent.is_dir():
        raise BadArgument(f"There is no folder {path.parent}.", hint="Make it first, or choose another place.")
    if path.exists() and not chats.is_saved(path):
        raise BadArgument(
            f"{path} is there already and is no saved conversation, so it was left as it is.",
            hint="Choose another name, or remove it first.",
        )
    replace_file(path.absolute(), conversation.dump().encode(), mode=0o600)
    return Outcome(Done(f"Saved {len(conversation.messages)} messages to {path}.", {"file": str(path)}))


def load(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import chats

    yield from ()
    conversation = chats.load(workspace, Path(args.file).expanduser(), args.name)
    return Outcome(ConversationDetail(conversation.endpoint, conversation.messages))


def infer(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import chats

    if bool(args.url) == bool(args.worker):
        raise BadArgument("Say where: --url URL, or --worker HOST:PORT.", hint="See: podlab infer --help")
    if not args.prompt:
        raise BadArgument("There is no prompt.", hint='Write: podlab infer --url URL --prompt "Say hello."')
    url = args.url or f"http://{args.worker}/v1"
    sampling = replace(_sampling(args), max_tokens=args.max_tokens or INFER_TOKENS)
    answer, model = yield from chats.infer(workspace, url, args.prompt, sampling, model=args.model, key_name=args.key)
    return Outcome(_reply(answer, url, model))
