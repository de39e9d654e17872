"""A pod's side per test, once with our own Python and once with the oldest a pod may have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.bench import PYTHON38, Bench, bench


@pytest.fixture(params=["own", "3.8"])
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    python = sys.executable if request.param == "own" else PYTHON38
    if python is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    made = bench(tmp_path / "pod", python)
    yield made
    made.sweep()
