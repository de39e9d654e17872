"""Requests to the Hugging Face Hub and to where its files are. Standard library, Python 3.8.

Put beside download.py on the pod. HF_ENDPOINT names another hub; a token is taken from HF_TOKEN only and sent to the
hub's own host only, never in the clear.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from podlab.remote.hashing import Follower

TIMEOUT_S = 30.0
HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


class Failure(Exception):
    """Nothing more to try. `cause` is one of engines.base.Cause."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class Transient(Exception):
    """Worth another try, after `wait_s` if the server named a time."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Remote:
    """A file as the hub describes it. `digest` is "sha256:HEX", "git:HEX" or "" when the hub names none."""

    def __init__(self, url: str, commit: str, digest: str, size: int | None) -> None:
        self.url, self.commit, self.digest, self.size = url, commit, digest, size
        self.in_pieces = True
        """Whether its server gives parts of a file, as far as that is known."""
        self.follower: Follower | None = None
        """What hashes it while it comes."""

    def wrote(self, have: int) -> None:
        """The first `have` bytes of it are on the disk."""
        if self.follower is not None:
            self.follower.upto(have)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are looked at by `head`: urllib would send the token along to another host."""

    def redirect_request(self, *args: Any) -> None:
        """None leaves the 3xx answer to the caller, as an HTTPError."""
        return


OPENER = urllib.request.build_opener(NoRedirect)


def host_of(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: what has to be the same for the token to go along."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def ask(method: str, url: str, headers: dict[str, str]) -> Any:
    """One request, the hub's own host getting the token. Raises HTTPError unless 2xx, Transient without an answer."""
    sent = {"User-Agent": "podlab", "Accept-Encoding": "identity"}
    sent.update(headers)
    token = os.environ.get("HF_TOKEN")
    if token and host_of(url) == host_of(HUB):
        scheme, host, _ = host_of(HUB)
        if scheme != "https" and host not in ("127.0.0.1", "localhost", "::1"):
            raise Failure("no_network", "HF_ENDPOINT is not https, and the token is not sent in the clear")
        sent["Authorization"] = "Bearer " + token
    try:
        request = urllib.request.Request(url, headers=sent, method=method)  # noqa: S310 - http(s), see `run`
        return OPENER.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        raise Transient(f"{host_of(url)[1]} does not answer: {why}")


def explain(error: urllib.error.HTTPError, repo: str, what: str) -> Exception:
    """An HTTP refusal as the failure it means. Codes: huggingface_hub's HfHubHTTPError, header X-Error-Code."""
    code, said = error.code, error.headers.get("X-Error-Code", "")
    page = f"{HUB}/{repo}"
    if said in ("RepoNotFound", "RevisionNotFound", "EntryNotFound") or code == 404:
        return Failure("model_not_found", f"the hub has no {what} in {repo} (or the repository is private)")
    if code in (401, 403):
        need = "its terms accepted" if os.environ.get("HF_TOKEN") else "a token (HF_TOKEN)"
        return Failure("gated_or_unauthorized", f"{repo} wants {need}: see {page}")
    if code == 429 or code >= 500:
        after = error.headers.get("Retry-After", "")
        return Transient(f"the hub answers {code}", min(60.0, float(after)) if after.isdigit() else None)
    return Failure("no_network", f"the hub answers {code} to {what}")


def refused(error: urllib.error.HTTPError, remote: Remote, repo: str, name: str) -> Exception:
    """What it means that the place where a file's bytes are does not give them."""
    if error.code in (301, 302, 303, 307, 308, 401, 403) and host_of(remote.url) != host_of(HUB):
        return Transient("the link to the file is not valid any more")  # signed links expire: `head` gets another
    return explain(error, repo, name)
