"""`podlab completion`: the script that gives a shell its tab completion."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.results import Outcome, ShellScript
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def script(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.commands.shell_completion import INSTALL, SCRIPTS

    yield from ()
    return Outcome(ShellScript(args.shell, SCRIPTS[args.shell], INSTALL[args.shell]))
