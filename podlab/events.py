"""What a verb says while it works. A handler is a generator of these and returns one result.

    Handler = Generator[Event, Answer, T]

Nothing below `commands` prints or prompts. A driver (a cell, a terminal, a panel, --json) decides how a Stage looks,
where a Chunk goes, and who answers an Ask: `answer = yield Ask(...)`. A driver where nobody can answer sends
`None`, and the verb then refuses, naming the flag that would have answered.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, TypeVar


@dataclass(frozen=True)
class Stage:
    """A step of long work has begun or moved on. `key` is stable while the step lasts; `text` is for people.

    `done` and `total` are in bytes when `unit` is "bytes", else counts; `total` is None while unknown. `parts` are
    things that go on side by side in it, each shown in a line of its own. `clock_s` is how long the whole has lasted
    where that is not what the watcher's own clock says; `name` is what the step is called once it is over, else `text`.
    """

    key: str
    text: str
    done: int | None = None
    total: int | None = None
    unit: Literal["", "bytes"] = ""
    parts: tuple[Stage, ...] = ()
    clock_s: float | None = None
    name: str = ""


@dataclass(frozen=True)
class Chunk:
    """A piece of output of something that runs: a command's bytes as text, a log, a model's answer."""

    text: str
    stream: Literal["stdout", "stderr", "answer", "reasoning"] = "stdout"


@dataclass(frozen=True)
class Notice:
    """One sentence a person should see although nothing failed."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Ask:
    """A question. `kind` decides who may answer it: --yes answers a deletion, a price and a command.

    A "command" is a shell line of the person's own that is about to run on a pod. A "choice" is answered with the
    place of one of `choices`, counted from 0; a "text" with what a person types, or `default`. `facts` are what the
    answer rests on, each a name and its value; `yes` is what a button says that answers with yes.
    """

    question: str
    kind: Literal["host_key", "delete", "price", "command", "choice", "text"]
    detail: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    yes: str = "Yes"


Event = Stage | Chunk | Notice | Ask
Answer = bool | int | str | None
T = TypeVar("T")
Work = Generator[Event, Answer, T]
"""Work that yields events, is sent answers to its Asks, and returns a T."""
