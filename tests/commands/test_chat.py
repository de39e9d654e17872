"""`chat save`, as far as it is about the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab.chat import Conversation
from podlab.commands import table
from podlab.commands.drive import drive
from podlab.commands.parsing import parse
from podlab.errors import BadArgument
from podlab.lab.workspace import Workspace
from podlab.types import Message
from tests.audiences import Silent


def test_only_a_saved_conversation_is_replaced(tmp_path: Path) -> None:
    """A notebook, say, that a name was completed to is left as it is."""
    workspace = Workspace.open()
    workspace.conversations["tiny"] = Conversation("tiny", "tiny", (Message("user", "hello"),))
    workspace.last_chat = "tiny"

    def save(path: Path) -> None:
        verb, rest = table.find(["chat", "save", str(path)])
        drive(verb.handler(workspace, parse(verb, rest, magic=True).args), Silent())

    notebook = tmp_path / "mine.ipynb"
    notebook.write_text('{"cells": []}')
    with pytest.raises(BadArgument, match="no saved conversation"):
        save(notebook)
    assert notebook.read_text() == '{"cells": []}'
    for _ in range(2):
        save(tmp_path / "talk.json")
    assert "hello" in (tmp_path / "talk.json").read_text()
    workspace.close()
