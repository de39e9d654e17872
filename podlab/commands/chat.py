"""`chat` and `infer`: speak with an endpoint, or with any OpenAI-compatible server."""

from __future__ import annotations

from podlab.commands.verb import Operand, Option, Verb


def _temperature(text: str) -> float:
    from podlab import settings  # at first use: --help must not pay for what reads config.toml

    return settings.temperature(text)


def _count(text: str) -> int:
    from podlab import settings

    return settings.count(text)


def _within(slash: str) -> str:
    """Where a terminal has what is a verb of its own in a notebook: no conversation outlives the command."""
    return f"Begin a conversation with podlab chat, and write {slash} in it."


SAMPLING = (
    Option("--temperature", "how freely words are chosen; 0 takes the likeliest", kind=_temperature, metavar="T"),
    Option("--max-tokens", "the longest answer, in tokens", kind=_count, metavar="N"),
    Option("--seed", "the same seed and conversation give the same answer", kind=int, metavar="K"),
)
NAME = Operand("name", "the endpoint (default: the one spoken to last, or the only one)", "?", values="endpoints")

VERBS = (
    Verb(
        "chat", "", "Speak with a model. The answer appears as it is produced.", "chat.say",
        detail="In a terminal: one answer when there is a prompt (or standard input), else a conversation, in which\n"
        "/help lists what can be written besides. A prompt of several words is best quoted.",
        operands=(NAME, Operand("prompt", "what to say, in a terminal", "*")),
        options=(
            Option("--system", "a system prompt; begins a new conversation", metavar="TEXT"),
            *SAMPLING,
            Option("--new", "begin a new conversation", kind=bool),
        ),
        example="%%chat tiny\nSay hello.", cell="may",
    ),
    Verb(
        "chat", "show", "Show the conversation so far.", "chat.show", operands=(NAME,), example="%chat show",
        in_terminal=_within("/show"),
    ),
    Verb(
        "chat", "reset", "Forget the conversation.", "chat.reset", operands=(NAME,), example="%chat reset",
        in_terminal=_within("/reset"),
    ),
    Verb(
        "chat", "save", "Save the conversation to a file.", "chat.save",
        operands=(Operand("file", "where to", values="files"), NAME), example="%chat save hello.json",
        in_terminal=_within("/save FILE"),
    ),
    Verb(
        "chat", "load", "Go on with a saved conversation.", "chat.load",
        operands=(Operand("file", "a saved conversation", values="files"), NAME), example="%chat load hello.json",
        in_terminal=_within("/load FILE"),
    ),
    Verb(
        "", "infer", "Ask any OpenAI-compatible server one thing.", "chat.infer",
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
