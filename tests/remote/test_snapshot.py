"""The program that fetches a whole repository: a hub on this computer, real bytes, broken transfers."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from podlab.engines.diagnosis import diagnose
from podlab.engines.repository import REPOSITORY_DOWNLOADER
from tests.remote.bench import PYTHON38

COMMIT = "c0ffee" * 6 + "c0ff"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00002.safetensors": os.urandom(300_000),
    "model-00002-of-00002.safetensors": os.urandom(200_000),
    "sub/tokenizer.json": b"{}" * 50,
    "pytorch_model.bin": b"pickle",
    "original/consolidated.00.pth": b"pickle",
    "model.Q8_0.gguf": b"GGUF",
    "onnx/model.onnx": b"onnx",
    ".gitattributes": b"x",
}
WANTED = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "sub/tokenizer.json"]


class Answers(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub = self.hub
        hub.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        if self.path.startswith("/api/models/"):
            if hub.gated:
                return self.send(401, b"", {"X-Error-Code": "GatedRepo"})
            names = [{"rfilename": name} for name in (*hub.files, *hub.more)]
            return self.send(200, json.dumps({"sha": hub.commit, "siblings": names}).encode(), {})
        name = self.path.partition(f"/resolve/{hub.commit}/")[2]
        if name not in hub.files:
            return self.send(404, b"", {})
        data = hub.files[name]
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(hub.told.get(name, data)).hexdigest()
            head = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data)), "ETag": '"a"'}
        else:
            digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            head = {"ETag": f'"{digest}"'}
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start:
            head["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = hub.cuts.pop(name, None) if self.command == "GET" else None
        self.send(206 if start else 200, data[start:], {**head, "X-Repo-Commit": hub.commit}, cut)

    def send(self, status: int, body: bytes, head: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for field_name, value in {"Content-Length": str(len(body)), **head}.items():
            self.send_header(field_name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, *args: object) -> None:
        """Nothing to say."""


@dataclass
class Hub:
    """A hub with one repository."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    more: tuple[str, ...] = ()
    """Names it lists besides."""
    told: dict[str, bytes] = field(default_factory=dict)
    """Files it gives the digest of another content for."""
    cuts: dict[str, int] = field(default_factory=dict)
    """Where the next transfer of a file breaks off."""
    commit: str = COMMIT
    gated: bool = False
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        handler: Any = type("Bound", (Answers,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def gets(self, name: str) -> int:
        return sum(method == "GET" and path.endswith(name) for method, path, _ in self.seen)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.stop()


@pytest.fixture(params=["own", "3.8"])
def python(request: pytest.FixtureRequest) -> str:
    found = sys.executable if request.param == "own" else PYTHON38
    if found is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    return found


def fetch(hub: Hub | str, folder: Path, python: str = sys.executable, **env: str) -> subprocess.CompletedProcess[str]:
    work = folder / "endpoint"
    work.mkdir(exist_ok=True)
    for name in REPOSITORY_DOWNLOADER:
        shutil.copy(str(resources.files("podlab.remote") / name), work / name)
    argv = [python, "-u", str(work / "snapshot.py"), "--dir", str(work), "--repo", "org/model", "--revision", "main",
            "--to", str(folder / "model")]  # fmt: skip
    url = hub if isinstance(hub, str) else hub.url
    given = {**os.environ, "HF_ENDPOINT": url, "PODLAB_BACKOFF_S": "0.01", **env}
    return subprocess.run(argv, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def there(folder: Path) -> dict[str, bytes]:
    model = folder / "model"
    ours = (".podlab.json", ".lock", "podlab-snapshot.json")
    return {
        path.relative_to(model).as_posix(): path.read_bytes()
        for path in sorted(model.rglob("*"))
        if path.is_file() and not path.name.endswith(ours)
    }


def cause(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    return diagnose(done.stdout.splitlines(), 1).cause.value


def test_the_files_that_are_needed_arrive_and_no_second_form_of_them(hub: Hub, tmp_path: Path, python: str) -> None:
    done = fetch(hub, tmp_path, python)
    assert done.returncode == 0, done.stdout
    assert there(tmp_path) == {name: FILES[name] for name in WANTED}
    manifest = json.loads((tmp_path / "model" / "podlab-snapshot.json").read_text())
    assert (manifest["commit"], manifest["files"]) == (COMMIT, WANTED)
    progress = json.loads((tmp_path / "endpoint" / "progress.json").read_text())
    assert progress["done"] == progress["total"] == sum(len(FILES[name]) for name in WANTED)
    assert progress["unit"] == "bytes"


def test_a_second_start_asks_once_and_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.seen.clear()
    assert fetch(hub, tmp_path).returncode == 0
    assert [path for _, path, _ in hub.seen] == ["/api/models/org/model/revision/main"]


def test_what_was_checked_before_is_used_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    done = fetch("http://127.0.0.1:9", tmp_path)
    assert done.returncode == 0, done.stdout
    (tmp_path / "model" / "config.json").write_bytes(b"changed")
    assert cause(fetch("http://127.0.0.1:9", tmp_path)) == "no_network"


def test_a_broken_transfer_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    name = "model-00001-of-00002.safetensors"
    hub.cuts[name] = 100_000
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stdout
    assert there(tmp_path)[name] == FILES[name]
    assert hub.gets(name) == 2


def test_a_file_that_changed_on_the_hub_is_fetched_and_the_others_are_not(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.commit, hub.files["config.json"] = "beef" * 10, b'{"model_type": "other"}'
    hub.seen.clear()
    assert fetch(hub, tmp_path).returncode == 0
    assert there(tmp_path)["config.json"] == hub.files["config.json"]
    assert [hub.gets(name) for name in WANTED] == [1, 0, 0, 0]


def test_weights_with_another_checksum_are_not_taken(hub: Hub, tmp_path: Path) -> None:
    hub.told["model-00002-of-00002.safetensors"] = b"something else"
    done = fetch(hub, tmp_path)
    assert done.returncode == 1
    assert "model-00002-of-00002.safetensors" not in there(tmp_path)
    assert not (tmp_path / "model" / "podlab-snapshot.json").exists()


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "a//b", "a\\b", "a/./b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.more = (name,)
    assert fetch(hub, tmp_path).returncode == 1
    assert there(tmp_path) == {}


def test_a_gated_repository_says_so_and_the_token_goes_to_the_hub_only(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    assert cause(fetch(hub, tmp_path)) == "gated_or_unauthorized"
    hub.gated = False
    assert fetch(hub, tmp_path, HF_TOKEN="hf_canary").returncode == 0
    assert hub.seen[-1][2] == "Bearer hf_canary"
    assert all(b"hf_canary" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_repository_without_weights_is_not_a_model(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "model.Q8_0.gguf": b"GGUF"}
    assert cause(fetch(hub, tmp_path)) == "model_not_found"


def test_pickles_are_taken_where_there_is_nothing_else(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    assert fetch(hub, tmp_path).returncode == 0
    assert sorted(there(tmp_path)) == ["config.json", "pytorch_model.bin"]
