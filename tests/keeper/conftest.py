"""A keeper belongs to one test: it is ended with it, and none may be left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport
from tests import machines
from tests.keeper.gone import wait_until_gone


def keepers(home: str) -> list[psutil.Process]:
    """The keepers of a PODLAB_HOME that are there, whatever state they are in."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "podlab.keeper" in (process.info["cmdline"] or ()) and process.environ().get("PODLAB_HOME") == home:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.fixture(autouse=True)
def no_keeper_is_left(own_home: Path) -> Iterator[None]:
    home = os.environ["PODLAB_HOME"]
    yield
    for process in keepers(home):
        process.resume()
        process.terminate()
        try:
            wait_until_gone(process.pid)
        except TimeoutError:
            process.kill()
            raise


@pytest.fixture
def transport(sshd: machines.Sshd) -> KeptTransport:
    """A pod through the keeper, its host key pinned. Nothing is started yet."""
    sshd.pin(HostKeys(), "pod-1")
    return KeptTransport("pod", "pod-1", sshd.address)
