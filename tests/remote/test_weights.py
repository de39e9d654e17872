"""Bringing weights to a pod over several connections, and looking after them there: real files, a hub that breaks."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources, util
from pathlib import Path
from typing import Any

import pytest

from podlab.engines.diagnosis import diagnose
from podlab.engines.repository import REPOSITORY_DOWNLOADER
from podlab.lab.talk import program
from podlab.lab.weights import ROOMS
from tests.remote.bench import PYTHON38
from tests.standin import Repo, StandIn, standing_in

SIZE = 60 << 20
"""Large enough for several connections, and for the process to be killed in the middle."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's files: a large one, a small one, one in a folder."""
    made = tmp_path_factory.mktemp("repo")
    (made / "model.safetensors").write_bytes(random.Random(3).randbytes(SIZE))
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "sub").mkdir()
    (made / "sub" / "tokenizer.json").write_bytes(b"{}" * 9000)
    (made / "m-q8_0.gguf").write_bytes(b"GGUF" + bytes(20_000))
    return made


@pytest.fixture
def hub(folder: Path) -> Iterator[StandIn]:
    with standing_in() as made:
        made.repos["org/model"] = Repo(folder)
        yield made


@pytest.fixture(params=["own", "3.8"])
def python(request: pytest.FixtureRequest) -> str:
    found = sys.executable if request.param == "own" else PYTHON38
    if found is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    return found


class Place:
    """A folder for models, and the programs beside each other as a pod has them."""

    def __init__(self, tmp_path: Path, hub: StandIn, python: str = sys.executable) -> None:
        self.work, self.models, self.hub, self.python = tmp_path / "job", tmp_path / "models", hub, python
        self.work.mkdir(exist_ok=True)
        for name in REPOSITORY_DOWNLOADER:
            text = (resources.files("podlab.remote") / name).read_text()
            (self.work / name).write_text(text)
        self.to = self.models / "org" / "model" / "main"

    def start(self, *options: str, **env: str) -> subprocess.Popen[str]:
        argv = [self.python, "-u", str(self.work / "snapshot.py"), "--dir", str(self.work), "--repo", "org/model",
                "--revision", "main", "--to", str(self.to), *options]  # fmt: skip
        given = {**os.environ, "HF_ENDPOINT": self.hub.url, "PODLAB_BACKOFF_S": "0.01", **env}
        return subprocess.Popen(argv, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *options: str, **env: str) -> tuple[int, str]:
        child = self.start(*options, **env)
        said = child.communicate(timeout=100)[0]
        return child.returncode, said

    def fetch(self, *options: str, **env: str) -> str:
        status, said = self.run(*options, **env)
        assert status == 0, said
        return said

    def same(self, folder: Path, *names: str) -> None:
        for name in names:
            assert sums(self.to / name) == sums(folder / name)

    def progress(self) -> dict[str, Any]:
        return dict(json.loads((self.work / "progress.json").read_text()))


def sums(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_comes_in_pieces_and_is_whole(tmp_path: Path, hub: StandIn, folder: Path, python: str) -> None:
    place = Place(tmp_path, hub, python)
    place.fetch()
    place.same(folder, "model.safetensors", "config.json", "sub/tokenizer.json")
    assert not (place.to / "m-q8_0.gguf").exists()
    spans = [seen.span for seen in hub.seen if seen.method == "GET" and seen.path.endswith("model.safetensors")]
    assert len(spans) > 2 and all(spans)
    assert not list(place.to.rglob("*.part*"))


def test_progress_tells_of_each_file(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    place = Place(tmp_path, hub)
    place.fetch()
    names = ("config.json", "model.safetensors", "sub/tokenizer.json")
    assert place.progress()["files"] == [[name, *[(folder / name).stat().st_size] * 2] for name in names]


@pytest.mark.parametrize("at", [0, 5 << 20, SIZE - 1])
def test_a_piece_that_breaks_off_is_taken_up_again(tmp_path: Path, hub: StandIn, folder: Path, at: int) -> None:
    hub.cuts("org/model", "model.safetensors", at, times=2)
    place = Place(tmp_path, hub)
    place.fetch()
    place.same(folder, "model.safetensors")


def test_a_store_without_ranges_sends_it_in_one(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    hub.ranges = False
    place = Place(tmp_path, hub)
    place.fetch()
    place.same(folder, "model.safetensors")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_store_is_asked_again(tmp_path: Path, hub: StandIn, folder: Path, status: int) -> None:
    hub.says("store", "GET", status, times=9, path="model.safetensors", Retry_After="0")
    place = Place(tmp_path, hub)
    place.fetch()
    place.same(folder, "model.safetensors")


def test_a_link_that_expired_is_asked_for_anew(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    hub.says("store", "GET", 403, path="model.safetensors")
    place = Place(tmp_path, hub)
    place.fetch()
    place.same(folder, "model.safetensors")


def test_what_was_killed_goes_on_from_what_had_come(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    """kill -9 in the middle: the part is the file's beginning, and is not fetched a second time."""
    hub.gate, hub.gate_at = threading.Event(), 40 << 20
    place = Place(tmp_path, hub)
    child = place.start()
    part = place.to / "model.safetensors.part"
    assert hub.reached.wait(30)
    for line in watched(part, 8 << 20):
        del line
    child.send_signal(signal.SIGKILL)
    child.wait()
    had = part.read_bytes()
    assert had and had == (folder / "model.safetensors").read_bytes()[: len(had)]
    hub.gate.set()
    hub.gate = None
    hub.seen.clear()
    place.fetch()
    place.same(folder, "model.safetensors")
    firsts = [int(seen.span[6:].partition("-")[0]) for seen in hub.seen if seen.role == "store" and seen.span]
    assert min(first for first in firsts) >= min(len(had), 40 << 20) - 1


def watched(part: Path, size: int) -> Iterator[None]:
    """Until a file has that size; the gate keeps the rest back, so it cannot be missed."""
    waiting = threading.Event()
    for _ in range(600):
        if part.exists() and part.stat().st_size >= size:
            return
        waiting.wait(0.05)
        yield
    raise AssertionError("nothing came")


def test_wrong_bytes_never_get_their_name(tmp_path: Path, hub: StandIn) -> None:
    hub.lies["model.safetensors"] = "0" * 64
    place = Place(tmp_path, hub)
    status, said = place.run()
    assert status == 1
    assert diagnose(said.splitlines(), 1).cause == "no_network"
    assert "arrived twice with another checksum" in said
    assert not (place.to / "model.safetensors").exists()


def test_a_token_goes_to_the_hub_and_not_to_the_store(tmp_path: Path, hub: StandIn) -> None:
    hub.repos["org/model"].gated = True
    place = Place(tmp_path, hub)
    status, said = place.run()
    assert status == 1 and diagnose(said.splitlines(), 1).cause == "gated_or_unauthorized"
    said = place.fetch(HF_TOKEN=hub.token)
    assert hub.token not in said
    assert {seen.authorization for seen in hub.seen if seen.role == "store"} == {""}


@pytest.mark.parametrize(
    "options, expected",
    [
        (("--include", "*.gguf"), {"m-q8_0.gguf"}),
        (("--include", "sub/*", "--include", "c*"), {"config.json", "sub/tokenizer.json"}),
        (("--include", "*.json", "--exclude", "sub/*"), {"config.json"}),
    ],
)
def test_only_what_is_asked_for(tmp_path: Path, hub: StandIn, options: tuple[str, ...], expected: set[str]) -> None:
    place = Place(tmp_path, hub)
    place.fetch(*options)
    found = {path.relative_to(place.to).as_posix() for path in place.to.rglob("*") if path.is_file()}
    assert {name for name in found if not name.endswith((".podlab.json", ".lock"))} == expected
    assert not (place.to / "podlab-snapshot.json").exists(), "not all is there, so a start must not take it for all"


def test_no_room_is_said_before_anything_comes(tmp_path: Path, hub: StandIn) -> None:
    place = Place(tmp_path, hub)
    download = place.work / "download.py"
    download.write_text(download.read_text().replace("SPARE_BYTES = 64 << 20", "SPARE_BYTES = 1 << 60"))
    status, said = place.run()
    assert status == 1 and diagnose(said.splitlines(), 1).cause == "disk_full"
    assert hub.gets("model.safetensors") == 0


def test_a_plan_says_what_would_come(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    place = Place(tmp_path, hub)
    place.fetch("--include", "config.json")
    said = place.fetch("--plan")
    expected = sum((folder / name).stat().st_size for name in ("model.safetensors", "sub/tokenizer.json"))
    assert json.loads(said.splitlines()[-1]) == {"need": expected}
    assert hub.gets("model.safetensors") == 0


def test_force_fetches_it_anew(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    place = Place(tmp_path, hub)
    place.fetch()
    before = hub.gets("config.json")
    place.fetch()
    assert hub.gets("config.json") == before
    place.fetch("--force")
    assert hub.gets("config.json") == before + 1
    place.same(folder, "config.json", "model.safetensors")


def test_the_hubs_own_client_takes_it_for_the_hub(tmp_path: Path, hub: StandIn, folder: Path) -> None:
    """huggingface_hub itself downloads from the stand-in, over its redirect, and finds the same files and commit."""
    if util.find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed: pip install 'podlab[test]'")
    fetch = "snapshot_download('org/model', cache_dir=sys.argv[1])"
    code = f"import sys; from huggingface_hub import snapshot_download; print({fetch})"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache")], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    got = Path(done.stdout.strip().splitlines()[-1])
    assert got.name == hub.repos["org/model"].commit
    for name in ("model.safetensors", "config.json", "sub/tokenizer.json", "m-q8_0.gguf"):
        assert sums(got / name) == sums(folder / name)


# ---------------------------------------------------------------------------------------- what looks after the files


def ask(models: Path, op: str, python: str = sys.executable, **body: Any) -> list[dict[str, Any]]:
    home = models.parent / "home"
    home.mkdir(exist_ok=True)
    source = program("weights", *ROOMS)
    request = {"v": 1, "op": op, "home": str(home), "models": str(models), **body}
    given = source.encode() + json.dumps(request).encode() + b"\n"
    boot = "import sys\nexec(compile(sys.stdin.buffer.read(int(sys.argv[1])),'podlab','exec'))"
    argv = [python, "-I", "-S", "-u", "-c", boot, str(len(source.encode()))]
    done = subprocess.run(argv, input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def listed(models: Path, python: str = sys.executable) -> dict[str, dict[str, Any]]:
    return {answer["model"]["id"]: answer["model"] for answer in ask(models, "list", python) if "model" in answer}


def test_models_are_named_as_a_start_names_them(tmp_path: Path, hub: StandIn, python: str) -> None:
    place = Place(tmp_path, hub, python)
    place.fetch()
    place.fetch("--include", "*.gguf")
    (place.models / "own.gguf").write_bytes(b"GGUF")
    (place.models / "sent-12345678").mkdir()
    (place.models / "sent-12345678" / "config.json").write_text("{}")
    for part in (1, 2):
        (place.models / f"split-0000{part}-of-00003.gguf").write_bytes(b"GGUF")
    found = listed(place.models, python)
    assert {name: model["state"] for name, model in found.items()} == {
        "hf:org/model": "whole", "hf:org/model/m-q8_0.gguf": "whole", f"pod:{place.models}/own.gguf": "whole",
        f"pod:{place.models}/sent-12345678/": "whole", f"pod:{place.models}/split-00001-of-00003.gguf": "partial",
    }  # fmt: skip
    whole = found["hf:org/model"]
    assert whole["commit"] == hub.repos["org/model"].commit
    assert whole["bytes"] == SIZE + 18000 + len('{"model_type": "llama"}')
    assert all(file["checked"] for file in whole["files"])


def test_a_flipped_bit_is_found_and_mended_by_a_download(
    tmp_path: Path, hub: StandIn, folder: Path, python: str
) -> None:
    place = Place(tmp_path, hub, python)
    place.fetch()
    path = place.to / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        byte = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk does it: without a trace
    files = listed(place.models, python)["hf:org/model"]["files"]
    answers = ask(place.models, "verify", python, files=[{"path": f["path"], "digest": f["digest"]} for f in files])
    states = {Path(answer["file"]["path"]).name: answer["file"]["state"] for answer in answers if "file" in answer}
    assert states == {"model.safetensors": "damaged", "config.json": "ok", "tokenizer.json": "ok"}
    hub.seen.clear()
    place.fetch()
    place.same(folder, "model.safetensors")
    assert hub.gets("config.json") == 0


def test_a_file_outside_of_the_models_is_not_hashed(tmp_path: Path) -> None:
    (answer,) = ask(tmp_path / "models", "verify", files=[{"path": "/etc/passwd", "digest": ""}])
    assert answer["error"]["kind"] == "bad_request"


def test_deleting_leaves_what_is_another_models(tmp_path: Path, hub: StandIn) -> None:
    place = Place(tmp_path, hub)
    place.fetch()
    place.fetch("--include", "*.gguf")
    answers = ask(place.models, "delete", ids=["hf:org/model"])
    assert answers[0]["deleted"]["bytes"] >= SIZE
    assert set(listed(place.models)) == {"hf:org/model/m-q8_0.gguf"}
    ask(place.models, "delete", ids=["hf:org/model/m-q8_0.gguf"])
    assert os.listdir(place.models) == []


def test_what_a_process_names_is_in_use(tmp_path: Path, hub: StandIn) -> None:
    place = Place(tmp_path, hub)
    place.fetch("--include", "*.gguf")
    path = place.to / "m-q8_0.gguf"
    user = subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()", str(path)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert user.stdout is not None
    user.stdout.readline()
    (model,) = listed(place.models).values()
    assert str(user.pid) in model["used_by"][0]
    (refused,) = ask(place.models, "delete", ids=[model["id"]])
    assert refused["error"]["kind"] == "alive" and path.exists()
    user.communicate()
    ask(place.models, "delete", ids=[model["id"]])
    assert not path.exists()


def test_what_is_being_downloaded_is_in_use(tmp_path: Path, hub: StandIn) -> None:
    hub.gate, hub.gate_at = threading.Event(), 8 << 20
    place = Place(tmp_path, hub)
    child = place.start()
    assert hub.reached.wait(30)
    assert listed(place.models)["hf:org/model"]["used_by"]
    (refused,) = ask(place.models, "delete", ids=["hf:org/model"])
    assert refused["error"]["kind"] == "alive"
    hub.gate.set()
    assert child.wait(60) == 0
    assert child.stdout is not None
    child.stdout.close()


def test_a_file_with_another_name_frees_nothing(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.gguf").write_bytes(bytes(1000))
    os.link(models / "a.gguf", tmp_path / "kept")
    answers = ask(models, "delete", ids=[f"pod:{models}/a.gguf"])
    assert answers[0]["deleted"]["bytes"] == 0
    assert (tmp_path / "kept").exists()


def test_the_standard_cache_is_only_looked_at(tmp_path: Path, own_home: Path) -> None:
    blobs = own_home / ".cache" / "huggingface" / "hub" / "models--org--theirs" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "x").write_bytes(bytes(5000))
    (other,) = [a["other"] for a in ask(tmp_path / "models", "list", others=True) if "other" in a]
    assert (other["id"], other["bytes"]) == ("org/theirs", 5000)
    assert (blobs / "x").exists()
