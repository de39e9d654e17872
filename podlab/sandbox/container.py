"""A simulated pod's container: a folder, a first process, and whatever is started in it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from podlab.sandbox.processes import ProcessFacts, below, table

INIT = Path(__file__).with_name("pod_init.py")
KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SHELL", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
        "NO_PROXY", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "PIP_CONFIG_FILE",
        "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CACHE_DIR", "UV_INDEX_URL", "UV_DEFAULT_INDEX",
        "UV_CACHE_DIR")  # fmt: skip
"""What of this computer's environment a pod gets: what its programs need to run and to fetch packages."""
END_S = 20.0


class Job:
    """A program that was started in a pod. `status` is its exit status, minus N for signal N; None while it runs."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.status: int | None = None
        self.ended = threading.Event()
        self.on_end: Callable[[], None] = lambda: None


class Container:
    """Everything that runs in a pod between one boot and the next halt. Safe from several threads."""

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        """`env` is what its sessions have; HOME is `home`."""
        self.env = {**{name: os.environ[name] for name in KEPT if name in os.environ}, **env, "HOME": str(home)}
        self.home = home
        ours, theirs = socket.socketpair()
        with theirs:
            self._init = subprocess.Popen(
                [sys.executable, "-I", "-S", str(INIT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, cwd="/", env={},
            )  # fmt: skip
        self._wire = ours
        self._jobs: dict[int, Job] = {}
        self._next = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="sandbox pod", daemon=True).start()

    def start(
        self, argv: Sequence[str], descriptors: tuple[int, int, int], *, env: Mapping[str, str] | None = None,
        tty: bool = False, on_end: Callable[[], None] | None = None,
    ) -> Job:  # fmt: skip
        """Start a program with these descriptors as its 0 to 2; they stay open here. Raises OSError when the pod has
        ended. `on_end` is called from another thread."""
        job = Job()
        if on_end:
            job.on_end = on_end
        with self._lock:
            self._next += 1
            self._jobs[self._next] = job
            asked = {"id": self._next, "argv": list(argv), "env": {**self.env, **(env or {})}, "cwd": str(self.home),
                     "tty": tty, "fds": 3}  # fmt: skip
            data = json.dumps(asked).encode() + b"\n"
            sent = socket.send_fds(self._wire, [data], list(descriptors))
            self._wire.sendall(data[sent:])
        return job

    def signal(self, job: Job, number: int) -> None:
        """Send a signal to a job's process group."""
        with self._lock, contextlib.suppress(OSError):
            for each, found in self._jobs.items():
                if found is job:
                    self._wire.sendall(json.dumps({"signal": number, "id": each}).encode() + b"\n")

    def processes(self, seen: list[ProcessFacts] | None = None) -> list[ProcessFacts]:
        """All that runs in it; of what was `seen` just now, or by a look of its own."""
        if self._init.poll() is not None:
            return []
        return below(self._init.pid, table() if seen is None else seen)

    def end(self) -> None:
        """Kill everything in it; returns when nothing is left."""
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)
        try:
            self._init.wait(END_S)
        except subprocess.TimeoutExpired:
            self._init.kill()
            self._init.wait()
        self._wire.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._wire.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                with self._lock:
                    job = self._jobs.get(said["id"])
                    if "status" in said:
                        self._jobs.pop(said["id"], None)
                if job is None:
                    continue
                if "pid" in said:
                    job.pid = said["pid"]
                else:
                    self._over(job, said["status"])
        with self._lock:
            left, self._jobs = list(self._jobs.values()), {}
        for job in left:
            self._over(job, -9)

    @staticmethod
    def _over(job: Job, status: int) -> None:
        job.status = status
        job.ended.set()
        job.on_end()
