"""Run a verb's generator before an audience: a cell, a terminal, a panel, or a program that wants JSON."""

from __future__ import annotations

from typing import Protocol, TypeVar

from podlab.events import Answer, Ask, Chunk, Notice, Stage, Work

T = TypeVar("T")


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
    """Run `work` to its end and return its result; `yes` answers deletions and prices, never a host key.

    An interrupt that arrives while the audience is busy is thrown into the work, so that it can clean up.
    """
    answer: Answer = None
    try:
        event = next(work)
        while True:
            try:
                answer = None
                match event:
                    case Stage():
                        audience.stage(event)
                    case Chunk():
                        audience.chunk(event)
                    case Notice():
                        audience.notice(event)
                    case Ask():
                        answer = True if yes and event.kind != "host_key" else audience.ask(event)
            except BaseException as error:  # noqa: BLE001  # the work decides what it means, and ends by it otherwise
                event = work.throw(error)
            else:
                event = work.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value is untyped at this seam
    finally:
        work.close()
