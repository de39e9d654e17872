"""Ten thousand hostile names, paths, arguments and environment values on pods whose users log in to sh, bash and dash.

Each must come back byte for byte, and nothing in any of them may be carried out: every value is made of pieces that
would make a file `pwned` if a shell ever read them.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podlab.transport import files
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from tests import machines

ARGUMENTS, VALUES, NAMES, FOLDERS = 2400, 800, 120, 40
"""Of each sort, per shell: 3360, and 10 080 over the three."""
BATCH = 200
SHELLS = ("sh", "bash", "dash")
PIECES = [
    "$(touch pwned)", "`touch pwned`", ";touch pwned;", "|touch pwned", "&touch pwned&", "\ntouch pwned\n",
    "${IFS}", ">pwned", "<(touch pwned)", "'", '"', "'\"'\"'", "\\", "\\\n", "$", "$HOME", "$$", "$?", "!",
    "!!", "*", "?", "[a-z]", "{a,b}", "~", "~root", "#", " ", "  ", "\t", "\r", "\x01", "\x1b[31m", "\x7f", "-",
    "--", "-o", "=", "=ls", "%s", "%n", "a", "word", "é", "漢字", "\U0001f600", "\u202e", "\u2028", "\xa0",
    "\udce9", "(", ")", "EOF\n", "$'\\x41'", "{x}", "{port}", '{"a": [1, "b"]}', "^", "\\0", "\\x00", "/", "..",
    ".",
]  # fmt: skip


@dataclass
class Pod:
    """A transport to a pod, and a folder of its user."""

    transport: SshTransport
    folder: Path
    home: Path


@pytest.fixture(scope="module", params=SHELLS)
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with machines.for_a_user_of(request.param) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODLAB_HOME", str(tmp_path_factory.mktemp("podlab")))
        pins = HostKeys()
        server.pin(pins, "pod")
        folder = Path(tempfile.mkdtemp(dir=server.home))
        shutil.chown(folder, server.user)
        with SshTransport("pod", server.address, pins) as transport:
            yield Pod(transport, folder, server.home)


def generated(seed: str, count: int) -> list[str]:
    """Words of one to eight pieces each."""
    chance = random.Random(seed)
    return ["".join(chance.choices(PIECES, k=chance.randint(1, 8))) for _ in range(count)]


def batches(words: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(words), BATCH):
        yield words[start : start + BATCH]


def nothing_was_carried_out(pod: Pod) -> bool:
    found = [path for top in (pod.home, Path.cwd()) for path in top.rglob("pwned")]
    return not found and not Path("/pwned").exists()


def said(data: bytes) -> list[str]:
    return [os.fsdecode(word) for word in data.split(b"\0")[:-1]]


def test_arguments_arrive_byte_for_byte(pod: Pod) -> None:
    for words in batches(generated("arguments", ARGUMENTS)):
        done = pod.transport.run(["sh", "-c", r'for w do printf "%s\0" "$w"; done', "sh", *words], cwd=str(pod.folder))
        assert said(done.stdout) == words
    assert nothing_was_carried_out(pod)


def test_environment_values_arrive_byte_for_byte(pod: Pod) -> None:
    script = r'i=0; while [ $i -lt $0 ]; do eval "printf \"%s\\0\" \"\$V$i\""; i=$((i+1)); done'
    for words in batches(generated("values", VALUES)):
        env = {f"V{number}": word for number, word in enumerate(words)}
        done = pod.transport.run(["sh", "-c", script, str(len(words))], env=env, cwd=str(pod.folder))
        assert said(done.stdout) == words
    assert nothing_was_carried_out(pod)


def test_files_of_any_name_go_there_and_come_back(pod: Pod, tmp_path: Path) -> None:
    names = dict.fromkeys(word.replace("/", "_")[:50] for word in generated("names", NAMES * 2))
    chosen = [name for name in names if name not in (".", "..") and len(os.fsencode(name)) < 200][:NAMES]
    assert len(chosen) == NAMES
    for name in chosen:
        path, data = f"{pod.folder}/{name}", os.fsencode(name) * 3
        files.write_file(pod.transport, path, data)
        assert files.read_file(pod.transport, path) == data
        assert Path(path).read_bytes() == data
    seen = {file.path for file in files.list_tree(pod.transport, str(pod.folder))}
    assert set(chosen) <= seen
    there = tmp_path / "here"
    for _ in files.fetch_file(pod.transport, f"{pod.folder}/{chosen[0]}", there):
        pass
    assert there.read_bytes() == os.fsencode(chosen[0]) * 3
    assert nothing_was_carried_out(pod)


def test_commands_run_in_folders_of_any_name(pod: Pod) -> None:
    names = [f"d{number}{word.replace('/', '_')[:40]}" for number, word in enumerate(generated("folders", FOLDERS))]
    for name in names:
        (pod.folder / name).mkdir(mode=0o777)
        done = pod.transport.run(["sh", "-c", 'printf "%s\\0" "${PWD##*/}"'], cwd=f"{pod.folder}/{name}")
        assert said(done.stdout) == [name]
    assert nothing_was_carried_out(pod)
