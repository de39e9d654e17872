"""Workspaces for the use cases: without a keeper, and with an SSH pod where one is asked for. A computer that tends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.lab import pods
from podlab.lab.workspace import Workspace
from podlab.types import Pod
from tests.audiences import Silent
from tests.lab.company import Clock, Company
from tests.lab.tending_computer import Computer
from tests.machines import Sshd


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """This process's own workspace; its SSH connections are its own too."""
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    workspace = Workspace.open()
    yield workspace
    workspace.close()


@pytest.fixture
def box(workspace: Workspace, sshd: Sshd) -> Pod:
    """A machine reached by SSH, adopted with its fingerprint given in advance."""
    address = f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"
    work = pods.add(workspace, "box", address, models_path=None, host_key=sshd.fingerprint())
    return drive(work, Silent())[0]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def company(clock: Clock) -> Company:
    return Company(lambda: clock.true)


@pytest.fixture
def computer(tmp_path: Path, clock: Clock, company: Company) -> Computer:
    """It tends pods of `company` by `clock`."""
    return Computer(tmp_path, clock, company)
