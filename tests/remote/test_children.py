"""Work that may hang, with a deadline."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any

import pytest

from podlab.remote.children import Child, bury, inline, stuck
from tests.processes import wait_until

Run = Callable[[Callable[[], dict[str, Any]], float], dict[str, Any]]


def in_a_child(work: Callable[[], dict[str, Any]], deadline_s: float) -> dict[str, Any]:
    spare = os.open(os.devnull, os.O_RDONLY)
    child = Child(work, deadline_s, spare)
    os.close(spare)
    while (found := child.poll()) is None:
        select.select([child.descriptor], [], [], 0.05)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.descriptor)
    wait_until(lambda: bury() or not stuck(), timeout_s=30.0, why="it is buried")
    return found


@pytest.fixture(params=[in_a_child, inline])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.param
    return found


def hang() -> dict[str, Any]:
    time.sleep(600)
    return {}


def fail() -> dict[str, Any]:
    raise ValueError("as told")


def test_what_it_finds_comes_back(run: Run) -> None:
    assert run(lambda: {"much": "x" * 300_000}, 30.0) == {"much": "x" * 300_000}


def test_what_goes_wrong_is_told(run: Run) -> None:
    assert run(fail, 30.0) == {"failed": "ValueError: as told"}


def test_what_hangs_is_ended(run: Run) -> None:
    assert "did not end in time" in run(hang, 0.5)["failed"]


def test_what_says_too_much_is_ended() -> None:
    assert in_a_child(lambda: {"much": "x" * 2**23}, 30.0) == {"failed": "it said too much"}


def test_what_dies_is_told() -> None:
    assert in_a_child(lambda: os._exit(1), 30.0) == {"failed": "it ended without a result"}
