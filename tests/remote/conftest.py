"""A pod's side per test, once with our own Python and once with the oldest a pod may have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab.renting import Policy
from tests.remote.bench import PYTHON38, Bench, bench
from tests.remote.company import Company
from tests.remote.rented import LONG, Rent, Rented


@pytest.fixture(params=["own", "3.8"])
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    python = sys.executable if request.param == "own" else PYTHON38
    if python is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    made = bench(tmp_path / "pod", python)
    yield made
    made.sweep()


@pytest.fixture(params=["own", "3.8"])
def python(request: pytest.FixtureRequest) -> str:
    """An interpreter a pod may have."""
    if request.param == "own":
        return sys.executable
    if PYTHON38 is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    return PYTHON38


@pytest.fixture
def company() -> Iterator[Company]:
    """A provider, as far as a pod's switch uses it."""
    with Company() as made:
        yield made


@pytest.fixture
def rent(own_home: Path, company: Company) -> Iterator[Rent]:
    """Makes rented pods, whose HOME is the test's unless it is told another one."""
    made: list[Rented] = []

    def one(policy: Policy = LONG, **more: Any) -> Rented:
        pod = Rented(more.pop("home", own_home), more.pop("company", company), policy, **more)
        made.append(pod)
        return pod

    yield one
    for pod in made:
        pod.kill()
