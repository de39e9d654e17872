"""Driving a verb: who answers what, where an interrupt goes, and that the work always cleans up."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

from podlab.commands import drive as drive_module
from podlab.commands.drive import drive
from podlab.events import Answer, Ask, Chunk, Event, Notice, Stage
from tests.audiences import Silent

EVENTS: list[Event] = [Stage("a", "Doing a", 1, 2), Chunk("out"), Chunk("err", "stderr"), Notice("note", "warning")]


def asking(kind: Any) -> Generator[Event, Answer, Answer]:
    return (yield Ask("Really?", kind))


def test_events_reach_the_audience_in_order() -> None:
    """Each event goes to its method, unchanged and in order, and the result comes back."""
    seen: list[Event] = []

    class Watching(Silent):
        def stage(self, stage: Stage) -> None:
            seen.append(stage)

        def chunk(self, chunk: Chunk) -> None:
            seen.append(chunk)

        def notice(self, notice: Notice) -> None:
            seen.append(notice)

    def work() -> Generator[Event, Answer, int]:
        answers = []
        for event in EVENTS:
            answers.append((yield event))
        assert answers == [None] * 4
        return 42

    assert drive(work(), Watching()) == 42
    assert seen == EVENTS


def test_work_that_says_nothing() -> None:
    """A generator that yields nothing returns its value all the same."""

    def work() -> Generator[Event, Answer, str]:
        yield from ()
        return "done"

    assert drive(work(), Silent()) == "done"


@pytest.mark.parametrize("kind", ["host_key", "delete", "price", "command"])
@pytest.mark.parametrize("answer", [True, False, None])
def test_the_audience_answers(kind: str, answer: Answer) -> None:
    """Without yes every question goes to the audience, and its answer, None included, to the work."""
    audience = Silent(answer)
    assert drive(asking(kind), audience) is answer
    assert [ask.kind for ask in audience.asked] == [kind]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("delete", True), ("price", True), ("command", True), ("host_key", None), ("choice", None), ("text", None)],
)
def test_yes_never_answers_a_host_key(kind: str, expected: Answer) -> None:
    """yes answers a deletion, a price and a command without asking; everything else still goes to the audience."""
    audience = Silent(None)
    assert drive(asking(kind), audience, yes=True) is expected
    assert len(audience.asked) == (expected is None)


def test_an_answer_is_for_its_question_only() -> None:
    """The answer to a question is not sent again for the event behind it."""

    def work() -> Generator[Event, Answer, list[Answer]]:
        return [(yield Ask("?", "delete")), (yield Stage("a", "b")), (yield Ask("?", "price")), (yield Chunk("x"))]

    assert drive(work(), Silent(False), yes=True) == [True, None, True, None]


class Interrupting(Silent):
    """Is interrupted at its first stage."""

    def stage(self, stage: Stage) -> None:
        super().stage(stage)
        if len(self.stages) == 1:
            raise KeyboardInterrupt


def test_an_interrupt_reaches_the_work() -> None:
    """Ctrl-C while the audience is busy is raised at the work's own yield, so that it can clean up and say so."""
    trail: list[str] = []

    def work() -> Generator[Event, Answer, None]:
        try:
            yield Stage("a", "Working")
            trail.append("went on")
        except KeyboardInterrupt:
            trail.append("interrupted")
            yield Notice("Stopping it.")
            trail.append("stopped")
            raise
        finally:
            trail.append("closed")

    audience = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        drive(work(), audience)
    assert trail == ["interrupted", "stopped", "closed"]
    assert audience.notices == [Notice("Stopping it.")]


class InterruptAt:
    """Raises KeyboardInterrupt at the `moment`-th instruction that drive's own code carries out, as a signal may."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __call__(self, frame: FrameType, event: str, arg: object) -> InterruptAt | None:
        if frame.f_code.co_filename != drive_module.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted_at(moment: int) -> tuple[bool, list[str]]:
    """Whether drive ended by itself, and what the work went through."""
    trail: list[str] = []

    def work() -> Generator[Event, Answer, str]:
        trail.append("begun")
        try:
            for number in range(3):
                yield Stage("a", str(number))
            yield Ask("?", "delete")
        except KeyboardInterrupt:
            yield Notice("Stopping it.")
            trail.append("stopped")
            raise
        trail.append("done")
        return "done"

    before = sys.gettrace()
    sys.settrace(InterruptAt(moment))
    try:
        drive(work(), Silent(True))
    except KeyboardInterrupt:
        return False, trail
    finally:
        sys.settrace(before)
    return True, trail


def test_an_interrupt_between_two_steps_reaches_the_work() -> None:
    """At whichever instruction of the driver it lands: the work stops what it had begun, or never began, or is done."""
    moments = 0
    stopped = 0
    while True:
        moments += 1
        finished, trail = interrupted_at(moments)
        if finished:
            break
        assert trail in ([], ["begun", "stopped"], ["begun", "done"]), f"instruction {moments}"
        stopped += trail[-1:] == ["stopped"]
    assert trail == ["begun", "done"]
    assert stopped > 50, "it was tried between the steps"


def test_work_may_take_an_interrupt_as_its_end() -> None:
    """Work that catches the interrupt and returns gives its result: a job that goes on without a watcher."""

    def work() -> Generator[Event, Answer, str]:
        try:
            yield Stage("a", "Following")
        except KeyboardInterrupt:
            return "still running"
        return "ended"

    assert drive(work(), Interrupting()) == "still running"


def test_an_error_of_the_work_comes_out_as_it_is() -> None:
    """What the work raises is what the driver raises."""
    error = ValueError("no")

    def work() -> Generator[Event, Answer, None]:
        yield Stage("a", "b")
        raise error

    with pytest.raises(ValueError, match="no") as caught:
        drive(work(), Silent())
    assert caught.value is error


def test_an_error_of_the_audience_closes_the_work() -> None:
    """A terminal that went away ends the work through its own clean-up."""
    trail: list[str] = []

    class Gone(Silent):
        def chunk(self, chunk: Chunk) -> None:
            raise BrokenPipeError

    def work() -> Generator[Event, Answer, None]:
        try:
            yield Chunk("x")
        finally:
            trail.append("closed")

    with pytest.raises(BrokenPipeError):
        drive(work(), Gone())
    assert trail == ["closed"]


def test_the_work_is_closed_when_it_is_done() -> None:
    """Nothing of a generator is left suspended behind a result or an error."""

    def work() -> Generator[Event, Answer, int]:
        yield Chunk("x")
        return 1

    generator = work()
    drive(generator, Silent())
    assert inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED


def test_a_yes_in_advance_is_told_what_it_agrees_to() -> None:
    """With yes nobody is asked, and the price with what may come of it is said all the same."""
    audience = Silent(None)

    def work() -> Generator[Event, Answer, Answer]:
        facts = (("cap", "$5"), ("deadline", "in 2 h"))
        return (yield Ask("Rent it for $1/h?", "price", detail="One more.\nThe last.", facts=facts))

    assert drive(work(), audience, yes=True) is True
    (notice,) = audience.notices
    assert notice.text == "Rent it for $1/h? cap: $5; deadline: in 2 h. One more. The last."
