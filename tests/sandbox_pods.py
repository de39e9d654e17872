"""Pods of a simulated company for tests: rented over its API, reached by podlab's own transport."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from podlab.sandbox.serve import Running, start
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from podlab.types import SshAddress

T = TypeVar("T")
PATIENCE_S = 60.0


def until(look: Callable[[], T | None]) -> T:
    """What a look finds, once it finds something."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def new_identity(folder: Path) -> Path:
    path = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@contextlib.contextmanager
def a_tenant(folder: Path, **how: Any) -> Iterator[Tenant]:
    """A company of its own in a folder, and its one customer. `how` is as `serve.start` takes it."""
    running = start(folder / "sandbox", seed=7, **how)
    headers = {"Authorization": f"Bearer {running.key}"}
    with httpx2.Client(base_url=running.url, headers=headers, timeout=60) as http:
        try:
            yield Tenant(running, new_identity(folder), http)
        finally:
            running.stop()


@dataclass
class Tenant:
    """Somebody with an account and a key of their own."""

    running: Running
    identity: Path
    http: httpx2.Client

    def rent(self, name: str = "a-pod-1a2b", **changes: Any) -> str:
        """A new pod's id."""
        body = {
            "name": name, "image": "runpod/pytorch", "gpu": {"id": "NVIDIA RTX A5000"}, "ports": ["22/tcp"],
            "env": {"PUBLIC_KEY": self.identity.with_suffix(".pub").read_text().strip()}, **changes,
        }  # fmt: skip
        answer = self.http.post("/v2/pods", content=json.dumps(body))
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found

    def look(self, pod: str) -> Any:
        return self.http.get(f"/v2/pods/{pod}").json()

    def act(self, pod: str, action: str) -> Any:
        return self.http.post(f"/v2/pods/{pod}/action", json={"action": action})

    def machine(self, pod: str) -> Any:
        """The real thing behind a pod; None when it has none now."""
        assert self.running.machines is not None
        return self.running.machines.machines.get(pod)

    def folder(self, pod: str) -> Path:
        found: Path = self.machine(pod).folder
        return found

    def address(self, pod: str) -> SshAddress:
        """Where its SSH server listens, once it does."""

        def is_open() -> Any:
            machine = self.machine(pod)
            return machine and machine.sshd and machine.sshd.is_open and self.look(pod)["ssh"]["direct"]

        direct = until(is_open)
        return SshAddress(direct["host"], direct["username"], direct["port"], (str(self.identity),))

    def reach(self, pod: str) -> SshTransport:
        """podlab's own way to it, its host key verified."""
        address = self.address(pod)
        pins = HostKeys()
        kind, key = (self.folder(pod) / "etc_ssh" / "ssh_host_ed25519_key.pub").read_text().split()[:2]
        pod_id = f"{pod}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"  # another one for each container
        pins.pin(pod_id, kind, key)
        return SshTransport(pod, address, pins, pod_id=pod_id)

    def log(self, pod: str) -> list[str]:
        book = self.running.company.books[pod]
        return [line.text for line in book.read(source=None, after=None, tail=1000)]
