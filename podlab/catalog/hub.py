"""The Hugging Face Hub, asked for what describes a model: its files, its configuration, the headers of its weights.

HF_ENDPOINT names another hub. A token (HF_TOKEN) is sent to the hub's own host only, never along with a redirect to
another, never in the clear. What was read is kept in PODLAB_HOME/cache/hub by commit, so a second look asks only which
commit a revision is; without a network the last commit seen is taken.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

from podlab import secrets
from podlab.catalog.headers import TooShort
from podlab.durable import private_folder, replace_file
from podlab.errors import BadSettings, GatedRepo, HttpError, NotFound, StateDamaged
from podlab.http import Answer, Http
from podlab.secrets import Secret
from podlab.settings import home

T = TypeVar("T")

HUB = "https://huggingface.co"
DEADLINE_S = 20.0
_REDIRECTS = 5
_FIRST_BYTES = 256 * 1024
_MOST_HEADER_BYTES = 64 * 2**20
_KEPT_BYTES = 16 * 2**20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; where the hub says them its size and digest ("sha256:HEX", or "git:HEX" of its blob)."""

    name: str
    size_bytes: int | None
    digest: str = ""


@dataclass(frozen=True)
class Repository:
    """A repository at one commit. `parameters` counts weights, where the hub has counted them."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    parameters: int | None = None

    def file(self, name: str) -> HubFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)


class Hub:
    """Reads from the hub that HF_ENDPOINT names. Every call may block for DEADLINE_S and raises GatedRepo, NotFound
    (with what could have been meant) or HttpError (no network, or a hub that does not do its part)."""

    def __init__(self) -> None:
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadSettings(f"HF_ENDPOINT is {self.endpoint!r}, which is no web address.", hint=f"Such as {HUB}")
        self._token = secrets.find("HF_TOKEN")
        if self._token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise BadSettings("HF_ENDPOINT is not https, and the token is not sent in the clear.", hint="Use https.")

    def repository(self, repo: str, revision: str = "main") -> Repository:
        """What the repository holds at a branch, a tag or a commit. Without a network: what was last seen of it."""
        kept = self._folder(repo) / f"revision-{quote(revision, safe='')}.json"
        try:
            document = self._json(repo, f"/api/models/{repo}/revision/{quote(revision, safe='')}?blobs=true")
        except HttpError as error:
            if error.status == 0 and (last := _read(kept)) is not None:
                return _repository(repo, json.loads(last))
            raise
        found = _repository(repo, document)
        _keep(kept, json.dumps(_listing(found)).encode())
        return found

    def search(self, parameters: Mapping[str, str | Sequence[str]]) -> list[dict[str, Any]]:
        """What the hub's search of models answers (GET /api/models), each an object as it came. Raises HttpError."""
        answer = self._get(f"{self.endpoint}/api/models?{urlencode(parameters, doseq=True)}")
        if answer.status == 401:
            raise HttpError(
                f"{self.endpoint} does not accept the token HF_TOKEN.", status=401,
                hint="Set it again: podlab secret set HF_TOKEN, or take it away: podlab secret remove HF_TOKEN",
            )  # fmt: skip
        if answer.status == 429:
            after = answer.headers.get("retry-after", "")
            wait = f"after {after} s" if after.isdecimal() else "in some minutes"
            raise HttpError(
                f"{self.endpoint} answers that it was asked too often.", status=429,
                hint=f"Try again {wait}; with a token more is allowed: podlab secret set HF_TOKEN",
            )  # fmt: skip
        if not 200 <= answer.status < 300:
            raise HttpError(f"{self.endpoint} answered {answer.status} to a search.", status=answer.status)
        try:
            found = json.loads(answer.content)
        except (ValueError, RecursionError) as error:
            raise HttpError(f"{self.endpoint} did not answer with JSON.", status=answer.status) from error
        if not isinstance(found, list):
            raise HttpError(f"{self.endpoint} did not answer with a list of models.", status=answer.status)
        return [each for each in found if isinstance(each, dict)]

    def content(self, repository: Repository, name: str) -> bytes:
        """A small file, whole: a configuration, an index."""
        return self._kept(repository, name, lambda: self._whole(repository, name))

    def document(self, repository: Repository, name: str) -> dict[str, Any]:
        """A small file that holds a JSON object."""
        try:
            document = json.loads(self.content(repository, name))
        except (ValueError, RecursionError) as error:
            raise HttpError(f"{name} of {repository.repo} is not JSON: {error}", status=200) from error
        if not isinstance(document, dict):
            raise HttpError(f"{name} of {repository.repo} is not a JSON object.", status=200)
        return document

    def header(self, repository: Repository, name: str, parse: Callable[[bytes, str], T]) -> T:
        """What `parse` reads off the beginning of a large file, of which no more is fetched than it needs."""
        where, needed = f"{name} of {repository.repo}", _FIRST_BYTES
        data = _read(self._folder(repository.repo) / repository.commit / _plain(f"{name}.header")) or b""
        while True:
            with contextlib.suppress(TooShort):
                parsed = parse(data, where)
                if len(data) <= _KEPT_BYTES:
                    _keep(self._folder(repository.repo) / repository.commit / _plain(f"{name}.header"), data)
                return parsed
            if len(data) >= needed:
                needed *= 4
            if needed > _MOST_HEADER_BYTES:
                raise HttpError(f"The header of {where} has no end.", status=200)
            more = self._get(self._address(repository, name), span=(len(data), needed - 1))
            if more.status == 200 and data:  # it sends the whole file, whatever it is asked for
                data = b""
            elif not more.content or more.status == 416:
                raise HttpError(f"{where} ends within its header.", status=more.status)
            data += more.content

    def _whole(self, repository: Repository, name: str) -> bytes:
        answer = self._get(self._address(repository, name))
        self._check(answer, repository.repo, name)
        return answer.content

    def _address(self, repository: Repository, name: str) -> str:
        return f"{self.endpoint}/{repository.repo}/resolve/{repository.commit}/{quote(name)}"

    def _json(self, repo: str, path: str) -> Any:
        answer = self._get(self.endpoint + path)
        self._check(answer, repo)
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError) as error:
            raise HttpError(f"{self.endpoint} did not answer with JSON.", status=answer.status) from error

    def _get(self, url: str, span: tuple[int, int] | None = None) -> Answer:
        """GET, with redirects followed."""
        for _ in range(_REDIRECTS):
            parts = urlsplit(url)
            client = Http(f"{parts.scheme}://{parts.netloc}", key=self._key_for(url))
            try:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                answer = client.get_bytes(path, span=span, deadline_s=DEADLINE_S)
            except HttpError as error:
                raise HttpError(
                    f"The hub cannot be reached: {error.message}", status=0,
                    hint="Look at the network, or set HF_ENDPOINT to another hub. A local folder and most names of the "
                    "catalog need none.",
                ) from error  # fmt: skip
            finally:
                client.close()
            if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                return answer
            url = urljoin(url, answer.headers["location"])
        raise HttpError(f"{self.endpoint} redirects without end.", status=310)

    def _key_for(self, url: str) -> Secret | None:
        ours, theirs = urlsplit(self.endpoint), urlsplit(url)
        same = (ours.scheme, ours.hostname, ours.port) == (theirs.scheme, theirs.hostname, theirs.port)
        return self._token if same else None

    def _check(self, answer: Answer, repo: str, name: str = "") -> None:
        """Raises what a refusal means. The codes are the hub's X-Error-Code, as huggingface_hub reads it."""
        if 200 <= answer.status < 300:
            return
        code = answer.headers.get("x-error-code", "")
        page = f"{self.endpoint}/{repo}"
        if code == "GatedRepo" or answer.status == 403:
            whose = "the account of HF_TOKEN" if self._token else "an account"
            raise GatedRepo(
                f"{repo} is given only to accounts that accepted its terms.", page=page,
                hint=f"Accept them on {page} with {whose}"
                + ("." if self._token else ", then keep its token: podlab secret set HF_TOKEN"),
            )  # fmt: skip
        if code == "RevisionNotFound":
            raise NotFound(f"{repo} has no such revision.", hint=f"See {page}/refs")
        if code == "EntryNotFound" or (answer.status == 404 and name):
            raise NotFound(f"{repo} holds no {name}.", hint=f"See {page}/tree/main")
        if code == "RepoNotFound" or answer.status in (401, 404):
            raise NotFound(f"The hub has no {repo}, or not for you.", hint=self._meant(repo))
        raise HttpError(f"{self.endpoint} answered {answer.status} about {repo}.", status=answer.status)

    def _meant(self, repo: str) -> str:
        """What could have been meant, from the hub's own search."""
        found: list[str] = []
        with contextlib.suppress(HttpError, ValueError, TypeError, KeyError):
            answer = self._get(f"{self.endpoint}/api/models?search={quote(repo.rpartition('/')[2])}&limit=20")
            found = [str(model["id"]) for model in json.loads(answer.content)] if answer.status == 200 else []
        near = difflib.get_close_matches(repo, found, n=3, cutoff=0.5) or found[:3]
        if near:
            return f"Did you mean {' or '.join(near)}?"
        return "A private one needs the token of an account that sees it: podlab secret set HF_TOKEN"

    def _kept(self, repository: Repository, name: str, fetch: Callable[[], bytes]) -> bytes:
        path = self._folder(repository.repo) / repository.commit / _plain(name)
        if (data := _read(path)) is None:
            data = fetch()
            _keep(path, data)
        return data

    def _folder(self, repo: str) -> Path:
        host = urlsplit(self.endpoint).netloc.replace(":", "-")
        return home() / "cache" / "hub" / host / repo.replace("/", "--")


def _plain(name: str) -> str:
    return quote(name, safe="")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _keep(path: Path, data: bytes) -> None:
    """Into the cache; a full disk costs another fetch, no more."""
    with contextlib.suppress(OSError, StateDamaged):
        private_folder(path.parent)
        replace_file(path, data)


def _repository(repo: str, document: Any) -> Repository:
    """The hub's description of a repository. Raises HttpError where it is none."""
    try:
        files = tuple(
            HubFile(
                str(each["rfilename"]), each["size"] if isinstance(each.get("size"), int) else None, _digest_of(each)
            )
            for each in document["siblings"]
        )
        commit = str(document["sha"])
        counted = (document.get("safetensors") or {}).get("total")
    except (KeyError, TypeError, AttributeError) as error:
        raise HttpError(f"The hub does not describe {repo} in a way that is known.", status=200) from error
    if not commit.isalnum():
        raise HttpError(f"The hub names no commit of {repo}.", status=200)
    return Repository(repo, commit, files, counted if isinstance(counted, int) and counted > 0 else None)


def _digest_of(sibling: dict[str, Any]) -> str:
    """Of a file in LFS its SHA-256, of any other the name that git has for its content."""
    lfs = sibling.get("lfs")
    sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
    for kind, said in (("sha256", sha256), ("git", sibling.get("blobId"))):
        if isinstance(said, str) and said.isalnum():
            return f"{kind}:{said.lower()}"
    return ""


def _listing(repository: Repository) -> dict[str, Any]:
    siblings = [
        {"rfilename": file.name, "size": file.size_bytes}
        | ({"blobId": file.digest[4:]} if file.digest.startswith("git:") else {})
        | ({"lfs": {"sha256": file.digest[7:]}} if file.digest.startswith("sha256:") else {})
        for file in repository.files
    ]
    return {"sha": repository.commit, "siblings": siblings, "safetensors": {"total": repository.parameters}}
