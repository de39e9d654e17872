"""A model hub on this computer that serves real files as the real one does, and fails as it can.

Two hosts (two ports): the hub itself, which describes repositories, answers searches and keeps small files, and a store
where it leads to for large ones. huggingface_hub's own client takes it for the hub: tests/remote/test_weights.py has it
download from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_BYTES = 10_000
"""Files from this size on are in LFS: their digest is a SHA-256, and the store has them."""


@dataclass
class Seen:
    """One request as it arrived."""

    role: str
    method: str
    path: str
    span: str
    authorization: str


@dataclass
class Repo:
    """A repository: a folder of files, at one commit."""

    folder: Path
    commit: str = "c0ffee" * 6 + "c0ff"
    gated: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """What a search says of it besides its name."""

    def names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def sibling(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        size = path.stat().st_size
        told: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_name(path)}
        if size >= LFS_BYTES:
            told["lfs"] = {"sha256": sha256_of(path), "size": size, "pointerSize": 130}
        return told


def sha256_of(path: Path) -> str:
    key = (str(path), path.stat().st_mtime_ns, path.stat().st_size)
    if key not in _sums:
        with path.open("rb") as file:
            _sums[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _sums[key]


_sums: dict[tuple[str, int, int], str] = {}


def git_name(path: Path) -> str:
    if path.stat().st_size >= LFS_BYTES:
        return hashlib.sha1(str(path).encode()).hexdigest()
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Request(http.server.BaseHTTPRequestHandler):
    hub: StandIn
    role: str
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer()

    def answer(self) -> None:
        hub = self.hub
        hub.seen.append(
            Seen(
                self.role, self.command, self.path, self.headers.get("Range", ""), self.headers.get("Authorization", "")
            )
        )
        for fault in list(hub.faults):
            if fault.role == self.role and fault.method == self.command and fault.times and fault.path in self.path:
                fault.times -= 1
                if fault.act(self):
                    return None
                break
        parts = urlsplit(self.path)
        words = unquote(parts.path).strip("/").split("/")
        if self.role == "store":
            return self.file(hub.repos["/".join(words[:2])].folder / "/".join(words[2:]), {})
        if words[:2] == ["api", "models"]:
            return self.api(words[2:], parse_qs(parts.query))
        repo = hub.repos.get("/".join(words[:2]))
        if words[2:3] != ["resolve"] or repo is None:
            return self.send(404 if repo else 401, {"X-Error-Code": "RepoNotFound"})
        return self.resolve("/".join(words[:2]), repo, words[3], "/".join(words[4:]))

    def api(self, words: list[str], query: dict[str, list[str]]) -> None:
        if not words:
            return self.document(self.hub.search(query))
        repo = self.hub.repos.get("/".join(words[:2]))
        if repo is None:
            return self.send(401, {"X-Error-Code": "RepoNotFound"})
        if words[2:3] == ["tree"]:
            entries = [
                {"type": "file", "oid": told["blobId"], "size": told["size"], "path": told["rfilename"]}
                | ({"lfs": told["lfs"] | {"oid": told["lfs"]["sha256"]}} if "lfs" in told else {})
                for told in map(repo.sibling, repo.names())
            ]  # fmt: skip
            return self.document(entries)
        if words[2:] and words[3] not in ("main", repo.commit):
            return self.send(404, {"X-Error-Code": "RevisionNotFound"})
        name = "/".join(words[:2])
        siblings = [repo.sibling(each) for each in repo.names()]
        if "blobs" not in query:
            siblings = [{"rfilename": each["rfilename"]} for each in siblings]
        return self.document({"_id": "1", "id": name, "modelId": name, "sha": repo.commit, "private": False,
                              "gated": "manual" if repo.gated else False, "siblings": siblings, "tags": [],
                              "downloads": 0} | repo.facts)  # fmt: skip

    def resolve(self, name: str, repo: Repo, revision: str, file: str) -> None:
        if revision not in ("main", repo.commit):
            return self.send(404, {"X-Error-Code": "RevisionNotFound"})
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.send(401, {"X-Error-Code": "GatedRepo"})
        path = repo.folder / file
        if not path.is_file():
            return self.send(404, {"X-Error-Code": "EntryNotFound"})
        told = repo.sibling(file)
        fields = {"X-Repo-Commit": repo.commit}
        if "lfs" not in told:
            return self.file(path, {**fields, "ETag": f'"{told["blobId"]}"'})
        digest = self.hub.lies.get(file, told["lfs"]["sha256"])
        return self.send(302, {**fields, "Location": f"{self.hub.store}/{name}/{file}", "ETag": f'"{digest}"',
                               "X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(told["size"])})  # fmt: skip

    def document(self, value: Any) -> None:
        self.send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for field_name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(field_name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self, path: Path, fields: dict[str, str], upto: int | None = None) -> None:
        """A file, or the part of it that is asked for; `upto` breaks the connection off at that byte of the file."""
        size = path.stat().st_size
        first, last = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.hub.ranges else None
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        told = {"ETag": f'"{path.name}-{size}"', "Accept-Ranges": "bytes"} | fields
        if asked:
            told["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.send_response(206 if asked else 200)
        for name, value in ({"Content-Length": str(last - first + 1)} | told).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.flush()
        end = last + 1 if upto is None else min(upto, last + 1)
        with path.open("rb") as source, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            at = first
            while at < end:
                self.hub.pause(at)
                at += os.sendfile(self.connection.fileno(), source.fileno(), at, min(end - at, self.hub.piece_bytes))
        if upto is not None and upto <= last:
            self.close_connection = True
            self.connection.shutdown(2)

    def log_message(self, *args: object) -> None:
        """Nothing to say."""


@dataclass
class Fault:
    """What one host does to the next `times` requests with `method` whose path holds `path`."""

    role: str
    method: str
    act: Callable[[Request], bool]
    times: int
    path: str


@dataclass
class StandIn:
    """Both hosts. `lies` maps a file to the digest that is told instead of its own."""

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_canary_77aa"
    ranges: bool = True
    lies: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    gate: threading.Event | None = None
    """When set: no byte from `gate_at` of a file on is sent until the event."""
    gate_at: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    piece_bytes: int = 1 << 20
    _servers: list[http.server.ThreadingHTTPServer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.url, self.store = (self._serve(role) for role in ("hub", "store"))

    def _serve(self, role: str) -> str:
        handler: Any = type("Bound", (Request,), {"hub": self, "role": role})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    def pause(self, at: int) -> None:
        if self.gate is not None and at >= self.gate_at:
            self.reached.set()
            self.gate.wait(60)

    def search(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        words = query.get("search", [""])[0].lower().split()
        found = [
            {"id": name, "downloads": 0, "gated": "manual" if repo.gated else False, "tags": []} | repo.facts
            for name, repo in self.repos.items() if all(word in name.lower() for word in words)
        ]  # fmt: skip
        wanted = set(query.get("filter", [])) - {"text-generation"}
        kept = [each for each in found if wanted <= {*(each["tags"] or ())}]
        return sorted(kept, key=lambda each: -(each["downloads"] or 0))[: int(query.get("limit", ["1000"])[0])]

    def says(self, role: str, method: str, status: int, times: int = 1, path: str = "", **headers: str) -> None:
        """The next requests get this status and nothing else. `X_Error_Code` is the header X-Error-Code."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(role, method, lambda request: request.send(status, fields) is None, times, path))

    def cuts(self, repo: str, file: str, at: int, times: int = 1) -> None:
        """The store's next answers with that file end at byte `at` of it."""
        path = self.repos[repo].folder / file
        self.faults.append(Fault("store", "GET", lambda request: request.file(path, {}, at) is None, times, file))

    def gets(self, file: str) -> int:
        return sum(seen.method == "GET" and seen.path.endswith(file) for seen in self.seen)

    def stop(self) -> None:
        if self.gate is not None:
            self.gate.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def standing_in() -> Iterator[StandIn]:
    hub = StandIn()
    try:
        yield hub
    finally:
        hub.stop()
