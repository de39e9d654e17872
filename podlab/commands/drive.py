"""Run a verb's generator before an audience: a cell, a terminal, a panel, or a program that wants JSON."""

from __future__ import annotations

from typing import Protocol, TypeVar

from podlab.commands.interrupts import heard
from podlab.events import Answer, Ask, Chunk, Event, Notice, Stage, Work

T = TypeVar("T")
YES_ANSWERS = frozenset({"delete", "price", "command"})
"""Kinds of questions that --yes answers: never a host key, and nothing that has more answers than yes."""


class Audience(Protocol):
    """Who watches a verb work. Called on the thread that drives it; must not block except in `ask`."""

    def stage(self, stage: Stage) -> None:
        """Long work moved on."""

    def chunk(self, chunk: Chunk) -> None:
        """Output arrived."""

    def notice(self, notice: Notice) -> None:
        """Something worth a sentence."""

    def ask(self, ask: Ask) -> Answer:
        """A person's answer, or None where there is nobody to ask."""


def drive(work: Work[T], audience: Audience, *, yes: bool = False) -> T:
    """Run `work` to its end and return its result; `yes` answers deletions, prices and commands, never a host key.

    An interrupt, or an error of the audience, is thrown into the work, so that it can clean up. Wherever an interrupt
    lands, also between two steps of this very function, the work hears of it unless it has ended.
    """
    with heard():
        return _driven(work, audience, yes=yes)


def _driven(work: Work[T], audience: Audience, *, yes: bool) -> T:
    problem: BaseException | None = None
    thrown: BaseException | None = None
    try:
        while True:
            try:  # around the inner loop and not in it: no instruction of a step may lie outside
                if problem is None:
                    event = work.send(None)
                else:
                    thrown, problem = problem, None
                    event = work.throw(thrown)
                while True:
                    event = work.send(_shown(event, audience, yes=yes))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # a generator's return value is untyped at this seam
            except BaseException as error:
                if error is thrown:  # the work let it pass, or had ended: then it gives back what is thrown into it
                    raise
                problem = error
    finally:
        work.close()


def _shown(event: Event, audience: Audience, *, yes: bool) -> Answer:
    """Hand an event to the audience; its answer, if the event is a question."""
    match event:
        case Stage():
            audience.stage(event)
        case Chunk():
            audience.chunk(event)
        case Notice():
            audience.notice(event)
        case Ask():
            if not (yes and event.kind in YES_ANSWERS):
                return audience.ask(event)
            if event.kind == "price":  # what a yes in advance agrees to is told all the same
                facts = "; ".join(f"{name}: {value}" for name, value in event.facts)
                said = (event.question, facts and f"{facts}.", *event.detail.splitlines())
                audience.notice(Notice(" ".join(filter(None, said))))
            return True
    return None
