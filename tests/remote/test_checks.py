"""The program that measures a pod: what it tells, and what it leaves alone. With our own Python and the oldest one."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from podlab.lab.talk import PROTOCOL, Talk, begin, program
from podlab.transport.local import LocalTransport
from tests.remote.bench import PYTHON38

MIB = 2**20


@pytest.fixture(params=["own", "3.8"])
def python(request: pytest.FixtureRequest) -> str:
    found = sys.executable if request.param == "own" else PYTHON38
    if found is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    return found


def ask(python: str = sys.executable, **request: Any) -> dict[str, Any]:
    rooms = ("machine", "host", "package_index", "pythons", "setup")
    given = json.dumps({"v": PROTOCOL, **request}).encode() + b"\n"
    with Talk(begin(LocalTransport("pod"), program("checks", *rooms), given, python), "pod", 15.0) as talk:
        for answer in talk:
            return answer
    raise talk.broken_off()


def look(python: str = sys.executable, *, to_install: bool = True, **places: str) -> dict[str, Any]:
    return ask(python, op="look", package="demo", version="1.0", min_python=[3, 8], max_python=[3, 99], home="/nowhere",
               to_install=to_install, places=places)  # fmt: skip


@dataclass
class Server:
    """An index and a hub: pages by path, and the requests that came."""

    url: str = ""
    pages: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append((self.path, dict(self.headers)))
            status, body = found.pages.get(self.path.partition("?")[0], (404, b""))
            part = self.headers.get("Range", "").removeprefix("bytes=").split("-")
            if len(part) == 2:
                body = body[int(part[0]) : int(part[1]) + 1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing to say."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        found.url = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield found
        listening.shutdown()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_the_machine_is_told_and_nothing_is_written(python: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    found = look(python, to_install=False, environments=str(tmp_path / "a" / "envs"), models="~/models")
    assert sorted(tmp_path.rglob("*")) == before
    system = found["system"]
    assert system["uid"] == os.getuid() and system["memory_total_bytes"] > MIB
    assert system["glibc"] == (os.confstr("CS_GNU_LIBC_VERSION") or " ").split()[1]
    assert (system["administrator"] == "root") == (os.getuid() == 0)
    assert found["free_ports"] > 0
    place = found["place environments"]
    assert (place["there"], place["writable"], place["mounted"]) == (False, True, False)
    assert place["existing"] == str(tmp_path) and place["free_bytes"] > 0
    assert found["place models"]["path"] == os.path.expanduser("~/models")
    assert "index" not in found and "pythons" not in found, "a re-run asks for no network"


def test_pythons_are_told_with_what_they_can(python: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    rows = look(python)["pythons"]["pythons"]
    assert rows and all(row["version"] >= [3, 8] for row in rows)
    assert [row["pip"] for row in rows] == sorted((row["pip"] for row in rows), reverse=True)


def test_the_line_is_measured_by_a_part_of_a_wheel(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"<a href='/f/demo-0.9-py3-none-any.whl'>a</a> <a href='/f/demo-1.0-py3-none-any.whl#sha256=00'>b</a>"
    server.pages = {"/simple/demo/": (200, page), "/f/demo-1.0-py3-none-any.whl": (206, bytes(8 * MIB)),
                    "/api/models": (401, b"")}  # fmt: skip
    monkeypatch.setenv("PIP_INDEX_URL", server.url.replace("//", "//me:canary-7%21@") + "/simple")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    found = look()
    assert found["index"]["error"] == "" and found["index"]["bytes_per_s"] > 0
    assert "canary" not in json.dumps(found)
    asked = dict(server.asked)
    plain = base64.b64encode(b"me:canary-7!").decode()
    assert asked["/simple/demo/"]["Authorization"] == f"Basic {plain}"
    assert asked["/f/demo-1.0-py3-none-any.whl"]["Range"] == f"bytes=0-{4 * MIB - 1}"
    assert found["hub"]["error"] == "", "a hub that wants a login is there"


@pytest.mark.parametrize("status", [None, 503])
def test_what_does_not_answer_is_told_as_that(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    url = f"http://127.0.0.1:{closed_port()}" if status is None else server.url
    server.pages = {"/demo/": (503, b""), "/api/models": (503, b"")}
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("HF_ENDPOINT", url)
    found = look()
    words = "refused" if status is None else "it answers 503"
    assert words in found["index"]["error"] and words in found["hub"]["error"]
    assert found["index"]["bytes_per_s"] is None
    assert found["system"]["uid"] == os.getuid(), "the rest is told all the same"


def test_a_place_is_made_and_tried(python: str, tmp_path: Path) -> None:
    made = ask(python, op="place", path=str(tmp_path / "x" / "models"))
    assert (made["reason"], made["there"], made["writable"]) == ("", True, True)
    assert list((tmp_path / "x" / "models").iterdir()) == []
    (tmp_path / "file").write_text("")
    refused = ask(python, op="place", path=str(tmp_path / "file" / "models"))
    assert "Not a directory" in refused["reason"]


def test_a_mount_is_seen(python: str, tmp_path: Path) -> None:
    assert ask(python, op="where", path="/proc")["mounted"]
    (tmp_path / "link").symlink_to("/proc")
    assert ask(python, op="where", path=str(tmp_path / "link"))["mounted"]
    assert not ask(python, op="where", path=str(tmp_path))["mounted"]


def test_the_commands_of_an_installation_are_told_and_none_is_run(python: str, tmp_path: Path) -> None:
    words = [
        "--home",
        str(tmp_path / "h"),
        "--dir",
        str(tmp_path / "d"),
        "--engine",
        "demo",
        "--package",
        "demo==1.0",
        "--min-python",
        "3.8",
        "--probe",
        "import demo",
        "--index",
        "https://example.org/simple",
        "--pre",
        "all",
    ]
    making, installing = ask(python, op="plan", words=words)["commands"]
    assert making[1:3] == ["-m", "venv"] and making[3].startswith(str(tmp_path / "h" / "envs" / "demo-1.0-py3"))
    assert installing[0] == f"{making[3]}/bin/python"
    assert installing[-4:] == ["--extra-index-url", "https://example.org/simple", "--pre", "demo==1.0"]
    assert not (tmp_path / "h").exists() and not (tmp_path / "d").exists()
