"""Files and folders to a pod and back: verified, resumed, never outside of the target."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.errors import BadArgument, NotFound
from podlab.lab import files
from podlab.lab.workspace import Workspace
from podlab.types import Pod
from tests.audiences import Silent
from tests.machines import Sshd


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with nesting, odd names, an empty file, an executable and a link that leads away."""
    root = tmp_path / "data"
    (root / "deep er").mkdir(parents=True)
    (root / "empty").touch()
    (root / "-rf $(x) 'ü'").write_bytes(b"odd")
    (root / "deep er" / "run.sh").write_text("#!/bin/sh\n")
    (root / "deep er" / "run.sh").chmod(0o750)
    (root / "big").write_bytes(os.urandom(3_000_000))
    (root / "link").symlink_to("/etc/passwd")
    return root


def test_folder_there_and_back(workspace: Workspace, box: Pod, sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    """Every regular file arrives with its bytes and mode, both ways; a second time nothing is sent."""
    audience = Silent()
    moved = drive(files.push(workspace, box, str(tree), "work/data/"), audience)
    assert set(moved.files) == {"empty", "-rf $(x) 'ü'", "deep er/run.sh", "big"}
    assert moved.total_bytes == moved.sent_bytes == 3_000_000 + 3 + 10
    assert audience.stages[-1].total == moved.total_bytes
    again = drive(files.push(workspace, box, str(tree), "work/data/"), Silent())
    assert again.sent_bytes == 0
    back = tmp_path / "back"
    fetched = drive(files.pull(workspace, box, "work/data/data", str(back)), Silent())
    assert fetched.total_bytes == moved.total_bytes
    for name in moved.files:
        assert (back / name).read_bytes() == (tree / name).read_bytes()
        assert (back / name).stat().st_mode == (tree / name).stat().st_mode


def test_one_file(workspace: Workspace, box: Pod, sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    """A file keeps its name in a folder, and takes another one where it is given."""
    drive(files.push(workspace, box, str(tree / "big"), None), Silent())
    assert (sshd.home / "big").read_bytes() == (tree / "big").read_bytes()
    drive(files.pull(workspace, box, "~/big", str(tmp_path / "other")), Silent())
    assert (tmp_path / "other").read_bytes() == (tree / "big").read_bytes()


def test_refused(workspace: Workspace, box: Pod, tmp_path: Path) -> None:
    """What is not there, here or there, and an empty folder are refused by name."""
    (tmp_path / "nothing").mkdir()
    with pytest.raises(NotFound, match="missing"):
        drive(files.push(workspace, box, str(tmp_path / "missing"), None), Silent())
    with pytest.raises(NotFound, match="missing"):
        drive(files.pull(workspace, box, "~/missing", str(tmp_path)), Silent())
    with pytest.raises(BadArgument, match="nothing"):
        drive(files.push(workspace, box, str(tmp_path / "nothing"), None), Silent())
