"""`model explain`."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.results import Outcome
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def explain(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.explain import explain as explained

    yield from ()
    return Outcome(explained(args.file, args.engine))
