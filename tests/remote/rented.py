"""A rented pod on this computer: a start command as its first process, in a home of its own, with a pretended sshd.

The switch in it is the real one. PODLAB_SIMULATED keeps it to the processes of its own HOME, for the machine is shared.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podlab.lab import heartbeat
from podlab.lab.launches import Launch, Phase
from podlab.lab.start_command import Pace, start_command
from podlab.renting import Armed, Policy
from podlab.transport.local import LocalTransport
from tests.processes import wait_until
from tests.remote.bench import processes_with
from tests.remote.company import KEY, POD, Company

FAST = Pace(
    grace_s=600.0, tick_s=0.1, look_s=0.3, request_s=5.0, retry_s=0.3, retry_limit_s=1.0, check_s=60.0, quiet_s=3600.0
)
SSHD = "#!/bin/sh\necho sshd begins\nexec sleep 900\n"
LONG = Policy(lease_s=900.0)
WAIT_S = 60.0
"""Far more than anything here takes, even on a machine that is busy with other things."""


def armed_line(pod: Rented) -> dict[str, Any]:
    """What the switch said when it was armed."""
    line = next(line for line in pod.said() if line.startswith("podlab: armed "))
    value = json.loads(line.removeprefix("podlab: armed "))
    assert isinstance(value, dict)
    return value


class Rented:
    """One launch. `start` may be called again after `kill`: the same pod, resumed."""

    def __init__(
        self, home: Path, company: Company, policy: Policy, *, pace: Pace = FAST, python: str | None = sys.executable,
        usd_per_hour: float = 1.0, env: dict[str, str] | None = None, shell: str = "sh",
    ) -> None:  # fmt: skip
        self.home, self.company, self.policy = home, company, policy
        self.launch = Launch(uuid.uuid4().hex[:12], "pod", "pod-1", "runpod", time.time(), Phase.LIVE,
                             usd_per_hour=usd_per_hour, policy=policy)  # fmt: skip
        self.programs, self.keys, self.log = home / "bin", home / "etc", home / "container.log"
        self.programs.mkdir()
        self.keys.mkdir()
        (self.programs / "sshd").write_text(SSHD)
        (self.programs / "sshd").chmod(0o755)
        for name in ("sh", "sleep", "cat", "mkdir", "rm", "chmod", "grep", "ssh-keygen"):
            (self.programs / name).symlink_to(shutil.which(name) or "/nowhere")
        if python is not None:
            (self.programs / "python3").symlink_to(python)
        self.path = f"{self.programs}" if python is None else f"{self.programs}:/usr/bin:/bin"
        told = start_command(self.launch.id, policy, now=time.time(), usd_per_hour=usd_per_hour, pace=pace,
                             image_start=str(home / "image-start"))  # fmt: skip
        script = told.argv[2]
        if python is None:  # as in an image that has none anywhere
            script = script.replace("/usr/", "/nowhere/").replace("/opt/", "/nowhere/")
        self.argv = (shutil.which(shell) or shell, "-c", script)
        self.env = {
            "PATH": self.path, "HOME": str(home), "PODLAB_ETC_SSH": str(self.keys), "PODLAB_SIMULATED": "1",
            "RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": company.url, **told.env, **(env or {}),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def said(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def until_said(self, words: str, count: int = 1) -> None:
        wait_until(
            lambda: sum(words in line for line in self.said()) >= count, timeout_s=WAIT_S,
            why=f"{words!r} in the log:\n" + "\n".join(self.said()),
        )  # fmt: skip

    def until_ended(self) -> str:
        """How the company was asked to end it."""
        wait_until(lambda: self.company.ended_by, timeout_s=WAIT_S, why="\n".join(self.said()))
        assert self.company.ended_by is not None
        return self.company.ended_by

    def beat(self) -> Armed:
        with LocalTransport() as transport:
            return heartbeat.beat(transport, self.launch, now=time.time())

    def tell(self) -> Armed:
        with LocalTransport() as transport:
            return heartbeat.tell(transport, self.launch)

    def pids(self) -> list[int]:
        """Everything that runs in it."""
        return processes_with(f"\0HOME={self.home}\0".encode(), "environ")

    def switches(self) -> list[int]:
        """The switch, its children left out."""
        found, inside = [], self.pids()
        for pid in inside:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/stat").read_text()
                name, parent = words[words.index("(") + 1 : words.rindex(")")], int(words.rpartition(")")[2].split()[1])
                of_the_loop = parent in inside and Path(f"/proc/{parent}/comm").read_text().strip() != "podlab-switch"
                if name == "podlab-switch" and of_the_loop:
                    found.append(pid)
        return found

    def kill(self) -> None:
        """As a provider stops a container: all of it at once."""
        if self.process is not None:
            deadline = time.monotonic() + WAIT_S
            while (left := self.pids()) and time.monotonic() < deadline:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.process.poll()
                time.sleep(0.05)
            self.process.kill()  # a real sshd writes its title over its environment
            self.process.wait()
            self.process = None


Rent = Callable[..., Rented]
