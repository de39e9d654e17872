"""`chat` and `infer`: speak with an endpoint, or with any OpenAI-compatible server."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from podlab.commands.results import ConversationDetail, Done, Outcome, Reply
from podlab.commands.verb import Operand, Option, Verb
from podlab.errors import BadArgument
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.chat import Answer
    from podlab.lab.workspace import Workspace

SAMPLING = (
    Option("--temperature", "how freely words are chosen; 0 takes the likeliest", kind=float, metavar="T"),
    Option("--max-tokens", "the longest answer, in tokens", kind=int, metavar="N"),
    Option("--seed", "the same seed and conversation give the same answer", kind=int, metavar="K"),
)
NAME = Operand("name", "the endpoint (default: the one spoken to last, or the only one)", "?", values="endpoints")


def _reply(answer: Answer, endpoint: str, model: str) -> Reply:
    return Reply(
        answer.message.content, endpoint, model, answer.stop_reason, answer.message.reasoning, answer.usage,
        answer.first_token_s, answer.total_s, answer.tokens_per_second,
    )  # fmt: skip


def say(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import chats

    prompt = args.cell if args.cell is not None else " ".join(args.prompt or ())
    if not prompt.strip():
        raise BadArgument("There is nothing to say.", hint="Write the message in the cell below %%chat.")
    answer, conversation = yield from chats.say(
        workspace, args.name, prompt, system=args.system, new=args.new, temperature=args.temperature,
        max_tokens=args.max_tokens, seed=args.seed,
    )  # fmt: skip
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
    answer, model = yield from chats.infer(
        url, args.prompt, model=args.model, key_name=args.key, temperature=args.temperature,
        max_tokens=args.max_tokens or 50, seed=args.seed,
    )  # fmt: skip
    return Outcome(_reply(answer, url, model))


VERBS = (
    Verb(
        "chat", "", "Speak with a model. The answer appears as it is produced.", say,
        detail="In a terminal: one answer when there is a prompt (or standard input), else a conversation.",
        operands=(NAME, Operand("prompt", "what to say, in a terminal", "*")),
        options=(
            Option("--system", "a system prompt; begins a new conversation", metavar="TEXT"),
            *SAMPLING,
            Option("--new", "begin a new conversation", kind=bool),
        ),
        example="%%chat tiny\nSay hello.", cell="may",
    ),
    Verb("chat", "show", "Show the conversation so far.", show, operands=(NAME,), example="%chat show"),
    Verb("chat", "reset", "Forget the conversation.", reset, operands=(NAME,), example="%chat reset"),
    Verb(
        "chat", "save", "Save the conversation to a file.", save,
        operands=(Operand("file", "where to", values="files"), NAME), example="%chat save hello.json",
    ),
    Verb(
        "chat", "load", "Go on with a saved conversation.", load,
        operands=(Operand("file", "a saved conversation", values="files"), NAME), example="%chat load hello.json",
    ),
    Verb(
        "", "infer", "Ask any OpenAI-compatible server one thing.", infer,
        options=(
            Option("--url", "the server's base URL, ending in /v1", metavar="URL"),
            Option("--worker", "the server as HOST:PORT", metavar="HOST:PORT"),
            Option("--prompt", "what to say", metavar="TEXT"),
            Option("--model", "the model's name (default: the first the server lists)", metavar="NAME"),
            Option("--key", "the name of the secret that holds the server's key", metavar="SECRET", values="secrets"),
            *SAMPLING,
        ),
        example='podlab infer --worker 127.0.0.1:8000 --prompt "Say hello." --max-tokens 50',
    ),
)  # fmt: skip
