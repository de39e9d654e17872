"""A hub on this computer: repositories of files, their description, ranges, redirects to a store, refusals."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Seen:
    """One request as it arrived, at the hub or at its store."""

    role: str
    path: str
    authorization: str | None
    span: str | None
    sent: int = 0


class Request(http.server.BaseHTTPRequestHandler):
    hub: HubStandIn
    role: str

    def do_GET(self) -> None:
        seen = Seen(self.role, self.path, self.headers.get("Authorization"), self.headers.get("Range"))
        self.hub.seen.append(seen)
        status, headers, body = self.hub.answer(self.role, self.path, seen)
        seen.sent = len(body)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing to say."""


@dataclass
class HubStandIn:
    """`repos` maps OWNER/REPO to its files; `stored` names files that are led to the store; `refused` maps a
    repository to a status and the hub's code."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    ranges: bool = True
    sizes: bool = True
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._servers: list[http.server.ThreadingHTTPServer] = []
        self.url, self.store = self._serve("hub"), self._serve("store")

    def _serve(self, role: str) -> str:
        handler: Any = type("Bound", (Request,), {"hub": self, "role": role})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def answer(self, role: str, target: str, seen: Seen) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(target)
        if parts.path == "/api/models":
            wanted = parse_qs(parts.query)["search"][0].lower()
            found = [{"id": repo} for repo in self.repos if wanted.split("-")[0] in repo.lower()]
            return 200, {}, json.dumps(found).encode()
        words = unquote(parts.path).strip("/").split("/")
        if words[:2] == ["api", "models"]:
            return self._described("/".join(words[2:4]))
        repo, name = "/".join(words[:2]), "/".join(words[4:])
        if repo in self.refused:
            status, code = self.refused[repo]
            return status, {"X-Error-Code": code}, b""
        data = self.repos.get(repo, {}).get(name)
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        if role == "hub" and name in self.stored:
            return 302, {"Location": self.store + target}, b""
        return self._part(data, seen.span)

    def _described(self, repo: str) -> tuple[int, dict[str, str], bytes]:
        if repo in self.refused:
            status, code = self.refused[repo]
            return status, {"X-Error-Code": code}, b""
        if repo not in self.repos:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        siblings = [
            {"rfilename": name, **({"size": len(data)} if self.sizes else {})}
            for name, data in self.repos[repo].items()
        ]
        document: dict[str, Any] = {"sha": COMMIT, "siblings": siblings}
        if repo in self.parameters:
            document["safetensors"] = {"total": self.parameters[repo]}
        return 200, {}, json.dumps(document).encode()

    def _part(self, data: bytes, span: str | None) -> tuple[int, dict[str, str], bytes]:
        if not span or not self.ranges:
            return 200, {}, data
        first, last = (int(number) for number in span.removeprefix("bytes=").split("-"))
        if first >= len(data):
            return 416, {}, b""
        part = data[first : last + 1]
        return 206, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}, part
