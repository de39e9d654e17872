"""What the fault tests share: PODLAB_HOME is seen by kernels too, and nothing is left running."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import processes


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """End everything of this test's PODLAB_HOME, then see that no engine of it runs."""
    from podlab.commands.drive import drive
    from podlab.commands.parsing import parse
    from podlab.commands.table import find
    from podlab.lab.workspace import Workspace
    from tests.audiences import Silent

    home = os.environ["PODLAB_HOME"]
    yield
    workspace = Workspace.open()
    verb, rest = find(["model", "stop", "--all"])
    drive(verb.handler(workspace, parse(verb, rest, magic=False).args), Silent(), yes=True)
    workspace.close()
    assert processes.saying(f"{home}/pod/endpoints") == []
