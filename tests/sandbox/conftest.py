"""A simulated company for each test: open on a socket, or as pure logic on a clock that the test turns."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.sandbox.company import Company
from podlab.sandbox.records import Pace
from podlab.sandbox.serve import Running, start
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def company(clock: Clock) -> Company:
    return Company(now=clock, rng=random.Random(7), pace=Pace(provision_s=20, start_s=40, runtime_s=10))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    opened = start(tmp_path / "sandbox", seed=7)
    yield opened
    opened.stop()
