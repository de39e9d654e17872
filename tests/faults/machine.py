"""A pod of the tests' own: a real SSH server, added to PODLAB_HOME, with engines prepared once for all of them."""

from __future__ import annotations

from tests.audiences import Silent
from tests.machines import Sshd

NAME = "box"


def command(*words: str) -> object:
    """Carry out a verb in this process, as the terminal would; its value."""
    from podlab.commands.drive import drive
    from podlab.commands.parsing import parse
    from podlab.commands.table import find
    from podlab.lab.workspace import Workspace

    verb, rest = find(words)
    workspace = Workspace.open()
    try:
        call = parse(verb, rest, magic=False)
        return drive(verb.handler(workspace, call.args), Silent(), yes=True).value
    finally:
        workspace.close()


def address(sshd: Sshd) -> str:
    """How a person would write it."""
    return f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"


def add(sshd: Sshd, name: str = NAME) -> None:
    """`pod add`, its host key vouched for."""
    command("pod", "add", name, address(sshd), "--host-key", sshd.fingerprint())
