"""The server program with the real llama.cpp and the built-in model, as a child process."""

from __future__ import annotations

import importlib.util
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from podlab.engines.base import Cause
from podlab.engines.diagnosis import diagnose

PROGRAM = str(resources.files("podlab.remote") / "llamacpp_server.py")
TINY = Path(str(resources.files("podlab.catalog") / "data" / "tiny-q8_0.gguf"))
KEY = "sk-canary-7f3a"
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is not installed"),
    pytest.mark.skipif(not TINY.exists(), reason="the built-in model has not been made yet"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One start of the program, its log in a file."""

    folder: Path
    port: int = field(default_factory=free_port)
    child: subprocess.Popen[bytes] | None = None

    def start(self, *more: str, model: Path = TINY, prepare: Callable[[], None] | None = None) -> Server:
        (self.folder / "key").write_text(KEY + "\n")
        argv = [sys.executable, "-u", PROGRAM, "--key-file", str(self.folder / "key"), "--model", str(model)]
        argv += ["--name", "tiny", "--port", str(self.port), "--set", "cpuparams.n_threads=1", *more]
        with (self.folder / "log").open("wb") as log:
            self.child = subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=prepare)  # noqa: PLW1509
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.child is not None
        return self.child

    def log(self) -> list[str]:
        return (self.folder / "log").read_text(errors="replace").splitlines()

    def ready(self) -> Server:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                if self.get("/health", key=None)[0] == 200:
                    return self
            except OSError:
                time.sleep(0.01)
        raise AssertionError(self.log())

    def get(self, path: str, body: object = None, key: str | None = KEY) -> tuple[int, Any, dict[str, str]]:
        headers = {"Content-Type": "application/json", "Origin": "http://evil.example"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if text[:1] in "{[" else text, dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, None, dict(error.headers)

    def ended(self) -> int:
        """Exit status as the monitor tells it: 128 + N for signal N."""
        status = self.process.wait(30)
        return status if status >= 0 else 128 - status


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    if made.child and made.child.poll() is None:
        made.child.kill()
        made.child.wait()


def test_it_answers_as_the_name_it_was_given_to_whoever_has_the_key(server: Server) -> None:
    server.start("--set", "n_parallel=4", "--set", "n_ctx=2048").ready()
    status, models, _ = server.get("/v1/models")
    assert (status, [model["id"] for model in models["data"]]) == (200, ["tiny"])
    for path in ("/v1/models", "/slots", "/metrics", "/props"):
        assert server.get(path, key=None)[0] == 401, path
        assert server.get(path, key="sk-wrong")[0] == 401, path
    assert [slot["n_ctx"] for slot in server.get("/slots")[1]] == [512] * 4
    assert "llamacpp:prompt_tokens_total" in server.get("/metrics")[1]
    ask = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
    status, answer, headers = server.get("/v1/chat/completions", ask)
    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0
    assert headers.get("Access-Control-Allow-Origin", "") == "", "no web page may read it"
    assert server.get("/")[0] == 404, "no web page is served"


def test_only_this_machine_is_listened_to_and_the_key_shows_nowhere(server: Server) -> None:
    server.start().ready()
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    assert f"0100007F:{server.port:04X}" in listening
    assert f"00000000:{server.port:04X}" not in listening
    shown = (
        Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        + Path(f"/proc/{server.process.pid}/environ").read_bytes()
    )
    assert KEY.encode() not in shown
    assert not any(KEY in line for line in server.log())


def test_a_signal_ends_it_at_once_while_an_answer_is_under_way(server: Server) -> None:
    server.start().ready()
    ask = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100_000, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v1/chat/completions",
        json.dumps(ask).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.readline()
        asked = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 143
    assert time.monotonic() - asked < 15
    assert diagnose(server.log(), 143).cause is Cause.KILLED
    server.start().ready()  # the same port is free again at once


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_it_loads(server: Server, number: signal.Signals) -> None:
    server.start()
    deadline = time.monotonic() + 30
    while not any("loading model" in line for line in server.log()) and time.monotonic() < deadline:
        time.sleep(0.001)
    asked = time.monotonic()
    server.process.send_signal(number)
    assert server.ended() == 128 + number
    assert time.monotonic() - asked < 15


def test_a_kill_is_told_from_an_end(server: Server) -> None:
    server.start().ready()
    server.process.kill()
    assert diagnose(server.log(), server.ended()).cause is Cause.KILLED


def test_a_second_server_on_the_same_port_fails_and_says_so(server: Server, tmp_path: Path) -> None:
    server.start().ready()
    (tmp_path / "second").mkdir()
    second = Server(tmp_path / "second", server.port).start()
    assert second.ended() == 1
    assert diagnose(second.log(), 1).cause is Cause.PORT_IN_USE
    assert server.get("/health")[0] == 200


def spoiled(folder: Path, kind: str) -> Path:
    path = folder / "spoiled.gguf"
    data = TINY.read_bytes()
    path.write_bytes({"garbage": b"no model at all\n" * 99, "truncated": data[: len(data) // 3], "head": data[:300],
                      "empty": b""}[kind])  # fmt: skip
    return path


@pytest.mark.parametrize("kind", ["garbage", "truncated", "head", "empty"])
def test_a_spoiled_file_is_unreadable(server: Server, tmp_path: Path, kind: str) -> None:
    server.start(model=spoiled(tmp_path, kind))
    assert server.ended() == 1
    assert diagnose(server.log(), 1).cause is Cause.CORRUPT_WEIGHTS


@pytest.mark.parametrize(
    "more,cause,words",
    [
        (["--backend", "cuda"], Cause.DRIVER_OR_DEVICE, "its devices: "),
        (["--set", "n_ctxx=1"], Cause.BAD_FLAG, "n_ctxx"),
        (["--set", "flash_attn_type=\"ON\""], Cause.BAD_FLAG, "ON"),
        (["--set", "n_ctx=\"many\""], Cause.BAD_FLAG, "many"),
        (["--set", 'chat_template="{% for %}"'], Cause.TEMPLATE_ERROR, "chat template parsing error"),
        (["--model", "/nowhere/x.gguf"], Cause.MODEL_NOT_FOUND, "/nowhere/x.gguf"),
        (["--port", "70000"], Cause.BAD_FLAG, "70000 is no port"),
        (["--key-file", "/nowhere/key"], Cause.OTHER, "key cannot be read"),
        (["--key-file", "/dev/null"], Cause.OTHER, "key is empty"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_with_the_reason(server: Server, more: list[str], cause: Cause, words: str) -> None:
    server.start(*more)
    assert server.ended() == 1
    found = diagnose(server.log(), 1)
    assert (found.cause, words in found.lines[-1]) == (cause, True), server.log()


def test_memory_that_does_not_suffice_is_named(server: Server) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))

    server.start("--set", "n_ctx=4000000", prepare=small)
    assert server.ended() == 1
    found = diagnose(server.log(), 1)
    assert found.cause is Cause.OUT_OF_MEMORY_KV
    assert re.search("allocate", found.lines[-1])


def test_without_its_module_it_says_that_the_environment_is_missing(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    argv = [sys.executable, "-S", PROGRAM, "--key-file", str(tmp_path / "key"), "--model", str(TINY)]
    ended = subprocess.run([*argv, "--name", "t", "--port", "1"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert diagnose(ended.stderr.splitlines(), 1).cause is Cause.NO_ENVIRONMENT
