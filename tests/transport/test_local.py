"""This computer as a pod: what its operating system refuses is told as errors of podlab's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from podlab.errors import BadArgument, Unreachable
from podlab.transport.local import LocalTransport


def test_what_cannot_be_started(tmp_path: Path) -> None:
    """A file that is no program, one that may not be run, and too long a line: each by name, with what to do."""
    nothing, closed = tmp_path / "nothing", tmp_path / "closed"
    nothing.write_bytes(b"\0 no program")
    nothing.chmod(0o755)
    closed.write_text("#!/bin/sh\n")
    closed.chmod(0o644)
    for argv, reason, hint in (
        ([str(nothing)], "Exec format error", "#!/bin/sh"),
        ([str(closed)], "Permission denied", "may you run it"),
        (["true", "x" * 2**22], "Argument list too long", "standard input"),
        (["x" * 5000], "File name too long", "sh -c"),
        (["true", "a\0b"], "null byte", "NUL"),
    ):
        with pytest.raises(BadArgument, match=reason) as caught:
            LocalTransport().start(argv)
        assert hint in caught.value.hint and "Errno" not in caught.value.message
        assert len(caught.value.message) < 400


def test_no_descriptors_are_left() -> None:
    """A process that has too many files open reaches nothing, and says so; with some closed it goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/dev/fd")) + 1
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        os.close(fillers.pop())
        with pytest.raises(Unreachable, match="Too many open files") as caught:
            LocalTransport().start(["true"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
    assert "ulimit" in caught.value.hint
    assert LocalTransport().run(["true"]).status == 0
