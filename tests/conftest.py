"""What every test gets: a HOME and a PODLAB_HOME of its own, and no SSH agent of the person who runs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import machines, vllm_cpu


def pytest_configure() -> None:
    """A suite begun in a script's background inherits that interrupts are ignored, and so would all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """HOME is an empty folder, PODLAB_HOME another; the new HOME is given. A brake that was begun there ends with it:
    its thread would go on in the home of whoever runs the tests."""
    home = tmp_path / "home"
    home.mkdir()
    podlab_home = tmp_path / "podlab"
    podlab_home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PODLAB_HOME", str(podlab_home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield home
    if (brake := sys.modules.get("podlab.lab.kernel_brake")) is not None:
        brake.stop()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.Sshd]:
    """A real SSH server for the tests of one file."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    server = machines.start_sshd(tmp_path_factory.mktemp("machine"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter of an environment with vLLM's CPU build."""
    if vllm_cpu.PYTHON is None:
        pytest.skip(vllm_cpu.WHY_SKIPPED)
    return vllm_cpu.PYTHON
