"""Files and folders to a pod and back: verified, resumed, never outside of the target."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.errors import BadArgument, NotFound, TransferFailed
from podlab.lab import files, pods
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


def test_what_is_left_out_is_said(workspace: Workspace, box: Pod, sshd: Sshd, tmp_path: Path) -> None:
    """Links, to folders too, sockets and pipes are named in a sentence and in the result, both ways."""
    root = tmp_path / "odd"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("x")
    (root / "to a folder").symlink_to("folder")
    (root / "to nowhere").symlink_to("gone")
    os.mkfifo(root / "folder" / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "s"))
    left_out = ("folder/pipe", "s", "to a folder", "to nowhere")
    audience = Silent()
    moved = drive(files.push(workspace, box, str(root), "odd"), audience)
    assert (moved.files, moved.left_out) == (("folder/file",), left_out)
    assert all(name in audience.notices[0].text for name in left_out)
    audience = Silent()
    fetched = drive(files.pull(workspace, box, str(root), str(tmp_path / "back")), audience)
    assert (fetched.files, fetched.left_out) == (("folder/file",), left_out)
    assert all(name in audience.notices[0].text for name in left_out)
    assert drive(files.pull(workspace, box, "odd", str(tmp_path / "again")), Silent()).left_out == ()


@pytest.mark.parametrize("where", ["local", "box"])
def test_a_place_that_cannot_be_written(
    workspace: Workspace, request: pytest.FixtureRequest, tree: Path, tmp_path: Path, where: str
) -> None:
    """What the pod's shell says of it becomes a sentence that names the place and the fix."""
    pod = pods.find("local") if where == "local" else request.getfixturevalue("box")
    (tmp_path / "file").touch()
    for place in ("/proc/x", "/proc/deep/er/x", str(tmp_path / "file" / "below")):
        with pytest.raises(TransferFailed) as caught:
            drive(files.push(workspace, pod, str(tree / "big"), place), Silent())
        assert caught.value.message.startswith(f"{place} on pod {pod.name!r} cannot be written: ")
        assert not any(word in caught.value.message for word in ("sh:", "mkdir:", "line ", ".podlab-"))
        assert "may write" in caught.value.hint


def test_a_folder_that_cannot_be_read(workspace: Workspace, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is sent, instead of all but what could not be read."""
    scandir = os.scandir

    def refuse(path: str) -> object:  # root may read everything
        if str(path).endswith("deep er"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(TransferFailed, match=r"deep er cannot be read: Permission denied. Nothing was sent"):
        drive(files.push(workspace, pods.find("local"), str(tree), "x"), Silent())
    with pytest.raises(TransferFailed, match="File name too long"):
        drive(files.push(workspace, pods.find("local"), "x" * 5000, "x"), Silent())
