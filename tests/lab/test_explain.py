"""`model explain`, on files as people have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from podlab.errors import BadArgument, NotFound
from podlab.lab.explain import explain

LOGS = Path(__file__).parents[1] / "data" / "engine_logs"
TOO_LARGE = LOGS / "llamacpp" / "kv_too_large.log"


def podlab(*argv: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-c", "import podlab.cli; podlab.cli.main()", "model", "explain", *argv]
    return subprocess.run(program, input=given, capture_output=True)


def test_a_log_is_explained_as_a_document_and_as_text() -> None:
    done = podlab(str(TOO_LARGE), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told.keys() == {"cause", "line", "lines", "suggestion", "engine", "verified"}
    assert (told["cause"], told["engine"], told["verified"]) == ("out_of_memory_kv", "llamacpp", True)
    assert told["line"] == told["lines"][-1]
    assert "failed to allocate buffer for kv cache" in told["line"]
    assert "--ctx-size" in told["suggestion"]

    shown = podlab(str(TOO_LARGE)).stdout.decode()
    assert "out_of_memory_kv" in shown
    assert "failed to allocate buffer for kv cache" in shown


def test_a_log_comes_from_standard_input_too() -> None:
    told = json.loads(podlab("-", "--json", given=TOO_LARGE.read_bytes()).stdout)
    assert told["cause"] == "out_of_memory_kv"

    nothing = podlab("-", given=b"\n \n")
    assert nothing.returncode == 2
    assert b"Standard input is empty" in nothing.stderr


def test_the_engine_may_be_named() -> None:
    told = explain(str(LOGS / "quoted" / "vllm_kv_tokens.log"), "vllm")
    assert (told.engine, told.verified) == ("vllm", False)
    assert "--max-model-len 3664" in told.suggestion
    assert podlab(str(TOO_LARGE), "--engine", "nonesuch").returncode == 2


@pytest.mark.parametrize("name", ["", "nul\0l", "x" * 5000])
def test_what_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadArgument):
        explain(str(tmp_path / name), None)


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no file .*server\.log"):
        explain(str(tmp_path / "server.log"), None)
    (tmp_path / "empty").write_text(" \n\n")
    with pytest.raises(BadArgument, match="is empty"):
        explain(str(tmp_path / "empty"), None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(100_000))
    with pytest.raises(BadArgument, match="holds no text"):
        explain(str(tmp_path / "model.gguf"), None)
    with pytest.raises(BadArgument, match="is no file"):
        explain("/dev/zero", None)


def test_of_a_huge_log_its_ends_are_read(tmp_path: Path) -> None:
    """Its beginning names the engine, its end the cause; 200 GB of it lie in between, as a hole."""
    path = tmp_path / "server.log"
    head, tail = TOO_LARGE.read_bytes().split(b"ggml_aligned_malloc", 1)
    with path.open("wb") as out:
        out.write(head)
        out.seek(200 << 30)
        out.write(b"\n" + tail)
    told = explain(str(path), None)
    assert (told.cause, told.engine) == ("out_of_memory_kv", "llamacpp")


def test_of_a_huge_stream_the_same_is_kept() -> None:
    program = (
        "from podlab.lab import explain as room\n"
        "room.HEAD_BYTES = room.TAIL_BYTES = 4096\n"
        "print(room.explain('-', None).cause)"
    )
    head, tail = TOO_LARGE.read_bytes().split(b"ggml_aligned_malloc", 1)
    given = head + b"a line that says nothing\n" * 10_000 + tail
    done = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True)
    assert done.stdout.strip() == b"out_of_memory_kv"


def test_a_log_in_another_encoding_is_read(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("ValueError: No available memory for the cache blocks.\r\n", encoding="utf-16")
    assert explain(str(path), None).cause == "out_of_memory_kv"
    path.write_bytes(b"caf\xe9\nOSError: [Errno 28] No space left on device\n")
    assert explain(str(path), None).cause == "disk_full"
