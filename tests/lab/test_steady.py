"""Which boot it is: every process of a computer says the same, for a lease holds between processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.lab import steady

SAYS_SESSION = '[ "$*" = "-n kern.bootsessionuuid" ] && echo 2B7D9C3E-0000-4000-8000-0123456789AB'
SAYS_TIME = '[ "$*" = "-n kern.boottime" ] && echo "{ sec = 1700000000, usec = 12 } Tue Nov 14 22:13:20 2023"'
ASK = "import pathlib; from podlab.lab import steady; steady.LINUX = pathlib.Path('/nowhere'); print(steady.boot_id())"


def fake_sysctl(folder: Path, text: str) -> str:
    """A PATH with a sysctl that does what `text` says, and notes each call."""
    path = folder / "sysctl"
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {folder}/calls\n{text}\n")
    path.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def said_by_a_process(path: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", ASK], env={"PATH": path}, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize(
    ("text", "said"), [(SAYS_SESSION, "2B7D9C3E-0000-4000-8000-0123456789AB"), (SAYS_TIME, "{ sec = 1700000000,")]
)
def test_without_linux_s_own_the_processes_of_a_boot_still_agree(tmp_path: Path, text: str, said: str) -> None:
    """As on macOS."""
    path = fake_sysctl(tmp_path, text)
    first, second = said_by_a_process(path), said_by_a_process(path)
    assert first == second
    assert first.startswith(said)


@pytest.fixture
def no_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(steady, "LINUX", tmp_path / "none")
    steady._told_by_sysctl.cache_clear()
    yield
    steady._told_by_sysctl.cache_clear()


@pytest.mark.usefixtures("no_linux")
@pytest.mark.parametrize("text", ["exit 1", "echo"])
def test_where_nobody_tells_each_process_vouches_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(steady, "SYSCTL_S", 60.0)
    monkeypatch.setenv("PATH", fake_sysctl(tmp_path, text))
    assert steady.boot_id() == steady.boot_id() == steady._PROCESS
    assert (tmp_path / "calls").read_text().splitlines() == ["-n kern.bootsessionuuid", "-n kern.boottime"]


@pytest.mark.usefixtures("no_linux")
def test_a_sysctl_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "SYSCTL_S", 0.2)
    monkeypatch.setenv("PATH", fake_sysctl(tmp_path, "exec sleep 600"))
    assert steady.boot_id() == steady._PROCESS


def test_this_computer_says_the_same_to_each_process() -> None:
    ask = "from podlab.lab import steady; print(steady.boot_id())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == steady.boot_id()
