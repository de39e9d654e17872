"""A pretended company that is open on a socket, known to this PODLAB_HOME as `podlab sandbox up` makes it known."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab.commands import table
from podlab.commands.drive import drive
from podlab.commands.parsing import parse
from podlab.commands.results import Outcome
from podlab.lab import kernel_brake
from podlab.lab.workspace import Workspace
from podlab.sandbox.serve import Running, start
from tests.audiences import Silent


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    opened = start(tmp_path / "sandbox")
    place = Path(os.environ["PODLAB_HOME"]) / "sandbox.json"
    place.write_text(json.dumps({"url": opened.url, "key": opened.key, "pid": os.getpid()}))
    place.chmod(0o600)
    monkeypatch.setenv("PODLAB_PROVIDER", "sandbox")
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    yield opened
    opened.stop()


Say = Callable[..., Any]


@pytest.fixture
def say() -> Iterator[Say]:
    """Carry out a line as a terminal would, in this process: `say("pod offers A40")` gives the verb's value.

    `audience` answers what is asked, `yes` is --yes, `code` is the exit code that is expected.
    """
    workspace = Workspace.open()

    def carry_out(line: str, *, audience: Silent | None = None, yes: bool = False, code: int = 0) -> Any:
        verb, rest = table.find(table.ordered(shlex.split(line)))
        call = parse(verb, rest, magic=False)
        outcome: Outcome = drive(verb.handler(workspace, call.args), audience or Silent(), yes=yes)
        assert outcome.exit_code == code
        return outcome.value

    yield carry_out
    kernel_brake.stop()
    workspace.close()
