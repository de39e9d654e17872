"""Verbs that do nothing but what a test needs: stages, streams, answers, questions, failures.

They stand beside podlab's own in the table, so that the way from a magic to the cell is the real one.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from types import ModuleType
from typing import Any

from podlab.commands import table
from podlab.commands.results import Done, Outcome, Reply
from podlab.commands.verb import Operand, Option, Verb
from podlab.errors import ChatError, PodlabError, Refused
from podlab.events import Ask, Chunk, Notice, Stage, Work
from podlab.types import JobRow, Usage

seen: list[Namespace] = []
"""The arguments each call got, newest last."""


def echo(workspace: Any, args: Namespace) -> Work[Outcome]:
    """Give back what was given."""
    yield from ()
    seen.append(args)
    return Outcome(Done(" ".join(args.words) or str(args.cell), {"text": args.text or ""}))


def stages(workspace: Any, args: Namespace) -> Work[Outcome]:
    """Two stages of `seconds` each, in many small steps."""
    for key in ("one", "two"):
        for step in range(50):
            yield Stage(key, f"Stage {key}", step, 50)
            time.sleep(args.seconds / 50)
    return Outcome(Done("Both are done."))


def answer(workspace: Any, args: Namespace) -> Work[Outcome]:
    """An answer in pieces, after some thought."""
    text = args.text or "# Hello\n\n" + "".join(f"piece **{number}**, " for number in range(args.pieces))
    yield Chunk("first a *thought*", "reasoning")
    for start in range(0, len(text), 7):
        yield Chunk(text[start : start + 7], "answer")
        time.sleep(args.seconds / max(1, len(text) // 7))
        if args.fail and start > len(text) // 2:
            raise ChatError("The answer broke \x1b[31moff.\nHere.", hint="Ask again.")
    return Outcome(Reply(text, "tiny", "tiny", "stop", "first a *thought*", Usage(5, args.pieces), 0.1, 1.0, 42.0))


def output(workspace: Any, args: Namespace) -> Work[Outcome]:
    """Lines on both streams, cut where no line ends; then the status."""
    yield from (Chunk("one\ntw"), Chunk("bad\n", "stderr"), Chunk("o\n\x1b[2Jthr"), Chunk("ee"))
    state = "failed" if args.status else "succeeded"
    return Outcome(JobRow("j-1", "local", state, "make all", None, args.status), args.status)


def question(workspace: Any, args: Namespace) -> Work[Outcome]:
    """A notice and a question."""
    yield Notice("Look \x1b[31mhere.", "warning")
    said = yield Ask("Really?", "host_key" if args.key else "delete")
    if not said:
        raise Refused(f"The answer was {said}.", hint="Repeat with --yes")
    return Outcome(Done("Yes."))


def agree(workspace: Any, args: Namespace) -> Work[Outcome]:
    """A price and then a host key: two questions, one after the other."""
    facts = (("price", "$0.406/h"), ("cap", "$0.51 at most"))
    price = yield Ask("Rent it?", "price", facts=facts, yes="Rent for $0.406/h")
    if not price:
        raise Refused(f"The answer was {price}.", hint="Say it in advance with --yes.")
    key = yield Ask("Is SHA256:x its host key?", "host_key", detail="It is the first contact.", yes="It is its key")
    return Outcome(Done(f"price {price}, key {key}"))


def pick(workspace: Any, args: Namespace) -> Work[Outcome]:
    """A choice."""
    chosen = yield Ask("Which one?", "choice", "Now it is two.", ("one: the first", "two: the second"))
    name = yield Ask("Which name?", "text", default="lab")
    return Outcome(Done(f"chosen {chosen}, named {name}"))


def boom(workspace: Any, args: Namespace) -> Work[Outcome]:
    """An error of ours, or a defect; either may have a cause that somebody else worded."""
    yield from ()
    if args.defect:
        raise ZeroDivisionError(args.cause or "a defect")
    raise PodlabError("It did not\nwork \x1b]0;x\x07at all.", hint="Try the other.") from OSError(args.cause)


def found(workspace: Any, args: Namespace) -> Work[Outcome]:
    """Something to show, and not all of it is well."""
    yield from ()
    return Outcome(Done("1 of 2 checks failed: the disk is full", {"failed": "disk"}), 1)


def interrupted(workspace: Any, args: Namespace) -> Work[Outcome]:
    """Speaks, then waits to be interrupted, and cleans up."""
    try:
        for number in range(600):
            yield Chunk(f"word{number} ", "answer")
            time.sleep(0.1)
    finally:
        yield Notice("cleaned up")
    return Outcome(Done("never"))


_SECONDS = Option("--seconds", "how long", kind=float, default=0.0)
VERBS = (
    Verb("pod", "echo", "Give back.", "standin.echo", operands=(Operand("words", "any", "*"),), cell="may",
         options=(Option("--text", "a text", metavar="TEXT"), Option("--mode", "one of", values=("fast", "slow")))),
    Verb("pod", "stages", "Work.", "standin.stages", options=(_SECONDS,)),
    Verb("pod", "answer", "Speak.", "standin.answer",
         options=(_SECONDS, Option("--pieces", "how many", kind=int, default=40), Option("--text", "what"),
                  Option("--fail", "break off", kind=bool))),
    Verb("pod", "output", "Write.", "standin.output", options=(Option("--status", "ends with", kind=int, default=0),)),
    Verb("pod", "question", "Ask.", "standin.question", changes=True,
         options=(Option("--key", "ask for a key", kind=bool),)),
    Verb("pod", "agree", "Ask twice.", "standin.agree", changes=True),
    Verb("pod", "pick", "Ask which.", "standin.pick"),
    Verb("pod", "boom", "Fail.", "standin.boom",
         options=(Option("--defect", "badly", kind=bool), Option("--cause", "why"))),
    Verb("pod", "found", "Look.", "standin.found"),
    Verb("pod", "interrupted", "Wait.", "standin.interrupted"),
)  # fmt: skip


def install() -> None:
    """Put the verbs into the table; twice is harmless."""
    module = ModuleType("podlab.commands.handlers.standin")
    for verb in VERBS:
        setattr(module, verb.name, globals()[verb.name])
    sys.modules[module.__name__] = module
    table.VERBS = (*(verb for verb in table.VERBS if verb not in VERBS), *VERBS)


def remove() -> None:
    """Take them out again."""
    sys.modules.pop("podlab.commands.handlers.standin", None)
    table.VERBS = tuple(verb for verb in table.VERBS if verb not in VERBS)
