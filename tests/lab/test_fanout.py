"""Asking several at the same time: in order, together, and no longer than the deadline."""

from __future__ import annotations

import threading
import time

import pytest

from podlab.errors import NotFound, Unreachable
from podlab.lab.fanout import ask_all


def test_answers_stand_in_the_order_of_the_questions() -> None:
    """Whoever answers first, each answer is at its question's place."""
    turns = [threading.Event() for _ in range(5)]
    turns[4].set()

    def question(item: int) -> int:
        assert turns[item].wait(5)
        if item:
            turns[item - 1].set()
        return item * 10

    assert ask_all(range(5), question, deadline_s=5) == [0, 10, 20, 30, 40]


def test_all_are_asked_at_the_same_time() -> None:
    """Every question is under way before the first is answered."""
    together = threading.Barrier(20)
    assert ask_all(range(20), lambda item: together.wait(5) >= 0, deadline_s=5) == [True] * 20


def test_errors_of_ours_are_answers() -> None:
    """An error of ours stands where its answer would, and the others are not disturbed."""
    gone = NotFound("gone")

    def question(item: int) -> int:
        if item == 1:
            raise gone
        return item

    assert ask_all([0, 1, 2], question, deadline_s=5) == [0, gone, 2]


def test_a_silent_one_is_unreachable_in_time() -> None:
    """One that does not answer gives Unreachable at the deadline, whatever the others said, and holds nobody up."""
    never = threading.Event()
    began = time.monotonic()
    found = ask_all([0, 1, 2], lambda item: never.wait(30) if item == 1 else item, deadline_s=0.2)
    assert 0.2 <= time.monotonic() - began < 10
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], Unreachable)
    assert "0.2 s" in str(found[1])
    never.set()


def test_nobody_waits_longer_than_the_deadline_in_sum() -> None:
    """Ten silent ones take one deadline, not ten."""
    never = threading.Event()
    began = time.monotonic()
    found = ask_all(range(10), lambda item: never.wait(60), deadline_s=2.0)
    assert time.monotonic() - began < 12
    assert all(isinstance(answer, Unreachable) for answer in found)
    never.set()


def test_another_error_is_raised() -> None:
    """A defect of ours in a thread is not shown as a pod that does not answer."""

    def question(item: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_all([0], question, deadline_s=5)


def test_nobody_to_ask() -> None:
    """No questions, no answers, no waiting."""
    assert ask_all([], lambda item: item, deadline_s=5) == []


def test_threads_left_behind_do_not_keep_the_program() -> None:
    """A thread that still waits is a daemon: the program can end."""
    never = threading.Event()
    ask_all([0], lambda item: never.wait(30), deadline_s=0.01)
    left = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert all(thread.daemon for thread in left)
    never.set()
