"""What a hostile or odd pod may say about its files, and how it is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from podlab.errors import BadArgument, NotFound, TransferFailed
from podlab.transport import files
from podlab.transport.base import Process
from podlab.transport.local import LocalTransport


class WithTools(LocalTransport):
    """A pod where the programs of one folder come first."""

    def __init__(self, folder: Path, *, only: bool = False) -> None:
        super().__init__("odd")
        self._path = str(folder) if only else f"{folder}:{os.environ['PATH']}"

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        program = shutil.which(argv[0])
        assert program is not None
        return super().start([program, *argv[1:]], env={"PATH": self._path, **(env or {})}, cwd=cwd)


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    "entry",
    ["644 1 /etc/passwd", "644 1 ../x", "644 1 a/../../x", "644 1 a/..", "644 1 ./x", "644 1 a//b", "644 1 ",
     "644 x y", "nonsense", "644 99999999999999999999 x", "lrwxrwxrwx 1 x", "64999 1 x"],
)  # fmt: skip
def test_listed_names_that_lead_elsewhere(tmp_path: Path, entry: str) -> None:
    tool(tmp_path / "bin", "find", f"printf '644 1 good\\0%s\\0' '{entry}'")
    with pytest.raises(TransferFailed):
        files.list_tree(WithTools(tmp_path / "bin"), str(tmp_path))


def test_a_listing_without_end(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "find", "exec yes 644 1 x")
    with pytest.raises(TransferFailed, match="more than"):
        files.list_tree(WithTools(tmp_path / "bin"), str(tmp_path))


def test_listing_without_gnu_find(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = ["a b", "-x", "new\nline", "*", "deep/er", "ü"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
        (root / name).chmod(0o640)
    real = shutil.which("find")
    tool(tmp_path / "bin", "find", f'case " $* " in *" -printf "*) exit 1 ;; esac; exec {real} "$@"')
    listed = files.list_tree(WithTools(tmp_path / "bin"), str(root))
    assert listed == files.list_tree(LocalTransport(), str(root))
    assert [file.path for file in listed] == sorted(names)
    assert {file.mode for file in listed} == {0o640}


@pytest.mark.parametrize("names", [("sha256sum",), ("shasum",), ("python3",), ()])
def test_each_way_to_sum(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cat", "chmod", "dd", "head", "ls", "mkdir", "mv", "rm", "tail", "wc", *names):
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"there is no {name} here")
        tool(folder, name, f'PATH={os.environ["PATH"]} exec {program} "$@"')
    pod, source = WithTools(folder, only=True), tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    if names:
        list(files.send_file(pod, source, str(tmp_path / "there")))
        list(files.fetch_file(pod, str(tmp_path / "there"), tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == source.read_bytes()
    else:
        with pytest.raises(TransferFailed, match="cannot be verified"):
            list(files.send_file(pod, source, str(tmp_path / "there")))


def test_a_sum_that_lies(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "sha256sum", f"cat >/dev/null; echo {'0' * 64}")
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(TransferFailed, match="did not arrive whole"):
        list(files.fetch_file(WithTools(tmp_path / "bin"), str(tmp_path / "source"), tmp_path / "back"))
    with pytest.raises(TransferFailed, match="did not arrive whole"):
        list(files.send_file(WithTools(tmp_path / "bin"), tmp_path / "source", str(tmp_path / "there")))
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "there").exists()


def test_a_fetch_that_gets_more_than_was_said(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "tail", "exec yes")
    tool(tmp_path / "bin", "head", "exec cat")
    (tmp_path / "source").write_bytes(b"x" * 1000)
    with pytest.raises(TransferFailed):
        list(files.fetch_file(WithTools(tmp_path / "bin"), str(tmp_path / "source"), tmp_path / "back"))
    assert not (tmp_path / "back").exists()


def test_a_pod_whose_shell_talks(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "wc", "echo welcome to your pod; echo 5")
    (tmp_path / "source").write_bytes(b"x" * 1000)
    with pytest.raises(TransferFailed, match="what nobody can read") as caught:
        list(files.fetch_file(WithTools(tmp_path / "bin"), str(tmp_path / "source"), tmp_path / "back"))
    assert "bashrc" in caught.value.hint


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    pod, source, victim = LocalTransport(), tmp_path / "source", tmp_path / "victim"
    source.write_bytes(os.urandom(1000))
    victim.write_bytes(b"precious")
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    back.mkdir()
    part = f".podlab-{files._local_facts(source)[2]}.part"
    (there / part).symlink_to(victim)
    (back / part).symlink_to(victim)
    list(files.send_file(pod, source, str(there / "file")))
    with pytest.raises(TransferFailed, match="cannot be written"):
        list(files.fetch_file(pod, str(source), back / "file"))
    assert victim.read_bytes() == b"precious"


def test_what_is_not_here(tmp_path: Path) -> None:
    pod = LocalTransport()
    with pytest.raises(NotFound):
        list(files.send_file(pod, tmp_path / "missing", "x"))
    with pytest.raises(TransferFailed):
        list(files.send_file(pod, tmp_path, "x"))
    (tmp_path / "file").touch()
    with pytest.raises(TransferFailed, match="is a folder"):
        list(files.fetch_file(pod, str(tmp_path / "file"), tmp_path))
    with pytest.raises(BadArgument):
        files.read_file(pod, "")
    with pytest.raises(BadArgument):
        files.read_file(pod, "x", offset=-1)
