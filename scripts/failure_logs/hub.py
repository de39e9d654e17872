"""A stand-in for the Hugging Face Hub, as far as vLLM asks it: it serves one folder as a repository, or refuses as the Hub does."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from pathlib import Path
from typing import Literal

Mood = Literal["serves", "gated", "forbidden", "unauthorized", "missing", "busy"]
COMMIT = "c0ffee" * 6 + "c0ff"
REFUSALS: dict[str, tuple[int, str, str]] = {
    "gated": (401, "GatedRepo", "Access to model {repo} is restricted. You must have access to it and be authenticated to access it. Please log in."),
    "forbidden": (403, "GatedRepo", "Access to model {repo} is restricted and you are not in the authorized list. Visit https://huggingface.co/{repo} to ask for access."),
    "unauthorized": (401, "RepoNotFound", "Invalid username or password."),
    "missing": (404, "RepoNotFound", "Repository not found"),
    "busy": (503, "", "Service Unavailable"),
}  # fmt: skip
"""Status, X-Error-Code and X-Error-Message: what huggingface_hub tells the cases apart by (its utils/_http.py)."""


class Hub:
    """Serves `folder` as the only repository, in a thread, until `close`."""

    def __init__(self, folder: Path, mood: Mood) -> None:
        hub = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.folder, self.mood = folder, mood
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        path = to.path.partition("?")[0].strip("/")
        if self.mood != "serves":
            status, code, message = REFUSALS[self.mood]
            repo = "/".join(path.removeprefix("api/models/").split("/")[:2])
            self.send(to, status, {"X-Error-Code": code, "X-Error-Message": message.format(repo=repo)}, b"{}")
        elif path.startswith("api/models/"):
            self.describe(to, path)
        elif "/resolve/" in path:
            self.file(to, path.rpartition("/")[2])
        else:
            self.send(to, 404, {"X-Error-Code": "EntryNotFound"}, b"")

    def describe(self, to: http.server.BaseHTTPRequestHandler, path: str) -> None:
        files = sorted(self.folder.iterdir())
        if "/tree/" in path:
            body: object = [
                {"type": "file", "path": each.name, "size": each.stat().st_size, "oid": sha1(each)} for each in files
            ]
        else:
            repo = "/".join(path.split("/")[2:4])
            body = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "gated": False, "tags": [],
                    "downloads": 0, "likes": 0, "siblings": [{"rfilename": each.name} for each in files]}  # fmt: skip
        self.send(to, 200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def file(self, to: http.server.BaseHTTPRequestHandler, name: str) -> None:
        path = self.folder / name
        if not path.is_file():
            self.send(to, 404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        data = path.read_bytes()
        self.send(to, 200, {"ETag": f'"{sha1(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, data)

    def send(self, to: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        to.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            to.send_header(name, value)
        to.end_headers()
        if to.command == "GET":
            to.wfile.write(body)


def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
