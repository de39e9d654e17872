"""A pod on this computer for the tests of what runs on one: real processes in a home that is swept afterwards."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podlab.lab.facts import Facts, HealthCheck, Started
from podlab.lab.supervisor import PodSide
from podlab.transport.local import LocalTransport
from podlab.types import Step

SERVER = Path(__file__).parents[1] / "programs" / "server.py"
KEY = "sk-canary-of-the-endpoint"


def version(python: str) -> str:
    return subprocess.run([python, "-V"], capture_output=True, text=True).stdout.strip()


def python38() -> str | None:
    """The oldest Python a pod may have, or None when this computer has none."""
    found = [
        os.environ.get("PODLAB_TEST_PYTHON38"),
        shutil.which("python3.8"),
        *sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.8*/bin/python"))),
    ]
    for path in found:
        if path and os.path.exists(path) and version(path).startswith("Python 3.8."):  # pyenv's shims may lead nowhere
            return path
    return None


PYTHON38 = python38()  # at import: tests get another HOME


def processes_with(mark: bytes, file: str) -> list[int]:
    """Pids whose environment or command line (`file`) holds `mark`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{name}/{file}").read_bytes():
                    found.append(int(name))
    return found


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Bench:
    """One pod's side, and how its tests start servers there."""

    side: PodSide
    home: Path
    python: str = sys.executable
    started: list[str] = field(default_factory=list)

    def serve(self, *options: str, id: str | None = None, name: str = "tiny", steps: tuple[Step, ...] = (),
              secrets: dict[str, dict[str, str]] | None = None, port: int = 0, **more: Any) -> Started:  # fmt: skip
        argv = (self.python, "-I", "-S", str(SERVER), "--port", "{port}", "--name", "tiny-1", *options)
        serve = Step("serve", argv, {"SERVER_KEY": "{key}"})
        return self.side.start(
            id=id or str(uuid.uuid4()), name=name, steps=(*steps, serve), health=HealthCheck("tiny-1"), key=KEY,
            model="tiny", engine="test", secrets=secrets, port=port, **more,
        )  # fmt: skip

    def ready(self, *options: str, **more: Any) -> Facts:
        """Start a server and wait until it is ready."""
        return self.until_ready(self.serve(*options, **more).facts.id)

    def until_ready(self, id: str) -> Facts:
        return self.last(id, "ready", "ready")

    def until_ended(self, id: str) -> Facts:
        return self.last(id, "ended", "ended")

    def last(self, id: str, until: Any, expected: str) -> Facts:
        work = self.side.watch(id, 20.0, until)
        facts: Facts | None = None
        reason = None
        while reason is None:
            try:
                facts = next(work)
            except StopIteration as end:
                reason = end.value
        assert reason == expected, facts
        assert facts is not None
        return facts

    def job(self, script: str, **more: Any) -> Facts:
        """Run a shell script as a job."""
        step = Step("run", ("sh", "-c", script))
        return self.side.start(id=str(uuid.uuid4()), name="job", kind="job", steps=(step,), **more).facts

    def tell(self, facts: Facts, path: str) -> None:
        """Tell a test server something."""
        with contextlib.suppress(OSError):  # /exit ends it without an answer
            urllib.request.urlopen(f"http://127.0.0.1:{facts.port}{path}", timeout=5).close()

    def folder(self, id: str) -> Path:
        for kind in ("endpoints", "jobs"):
            if (self.home / kind / id).exists():
                return self.home / kind / id
        raise FileNotFoundError(id)

    def facts(self, id: str) -> Facts:
        return self.side.status([id])[0]

    def processes_of(self, id: str) -> list[int]:
        """What carries the mark of `id`, without asking podlab."""
        return processes_with(f"PODLAB_ENDPOINT={id}\0".encode(), "environ")

    def monitor_of(self, id: str) -> int:
        (pid,) = processes_with(f"/{id}/monitor.py".encode(), "cmdline")
        return pid

    def sweep(self) -> None:
        """End everything that was started here, also what podlab would have missed."""
        home = os.fsencode(self.home)
        for pid in {*processes_with(home + b"/", "cmdline"), *processes_with(b"=" + home + b"\0", "environ")}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def bench(home: Path, python: str = sys.executable) -> Bench:
    return Bench(PodSide(LocalTransport(), str(home), python), home, python)
