"""What RunPod says no with, and which of podlab's errors that is: one table, a test for each row of it.

Its API answers errors as RFC 9457 documents: title, status, detail, errors (docs.runpod.io/api-reference-v2). Statuses
decide; where one status means several things (400: a rule is broken, or nothing is free), the text does, in TEXTS. An
answer that is no such document comes from something in between, and proves nothing about a pod.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from podlab.errors import (
    ApiRetired,
    BadOrder,
    KeyRefused,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    OutOfFunds,
    OutOfStock,
    PodlabError,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    WrongState,
)
from podlab.http import Answer
from podlab.secrets import redact

KEY = "RUNPOD_API_KEY"
RETRY_AFTER_S = 60.0
"""Where a 429 does not say for how long: the shortest window of its quota."""
STATUSES: dict[int, type[PodlabError]] = {
    400: BadOrder,
    401: KeyRefused,
    402: OutOfFunds,
    403: NotAllowed,
    404: NotFound,
    405: ApiRetired,
    409: WrongState,
    410: ApiRetired,
    422: BadOrder,
    429: RateLimited,
}
"""What a status means in a document of the API itself. Others leave open whether anything was done."""
TEXTS: tuple[tuple[str, type[ProviderError]], ...] = (
    (r"no longer any instances available with the requested specifications", OutOfStock),
    (r"no longer any instances available with enough disk space", OutOfStock),
    (r"no instances available with the request(?:ed)? specifications", OutOfStock),
    (r"no instances currently available", OutOfStock),
    (r"not enough free GPUs on the host machine", OutOfStock),
    (r"\b(?:balance|funds|credits?|spend(?:ing)? (?:limit|rate))\b", OutOfFunds),
)
"""What only the words of a 400 or a 409 tell."""
OPAQUE = re.compile(r"something went wrong\b.*(?:try again|contact support)", re.IGNORECASE)
"""RunPod's own words for not knowing: whatever the status says, it may have been done."""
EDGE = frozenset({403, 429})
"""Statuses with which what stands before the API turns a request away (Cloudflare's 1010, its rate limit): nothing was
done, whatever their body is."""
HINTS: dict[type[PodlabError], str] = {
    OutOfStock: "Try another GPU or cloud, or more data centers: too narrow a list of them gets the same answer.",
    OutOfFunds: "Add credit, or raise the spending limit: https://console.runpod.io/user/billing",
    KeyRefused: "Set it again: podlab secret set RUNPOD_API_KEY",
    NotAllowed: "See what the key may do: https://console.runpod.io/user/settings",
    NotFound: "See: podlab pod list --all",
    WrongState: "See its state: podlab pod show",
    ApiRetired: "Upgrade podlab: pip install --upgrade podlab",
    ProviderUnavailable: "Try again in a moment.",
    OutcomeUnknown: "Look before you ask again: podlab pod list --all",
}
SANDBOX_HINTS: dict[type[PodlabError], str] = {
    OutOfFunds: "Its money is pretended: podlab sandbox money 25",
    KeyRefused: "Another sandbox is open by now: podlab sandbox up",
    ProviderUnavailable: "Try again in a moment. Is it still open? See: podlab sandbox status",
    NotAllowed: "Its account may do everything, a pod's own key only what is that pod's.",
}


@dataclass(frozen=True)
class Problem:
    """What an error's body says. `genuine`: it is a document of the API, not of something in between."""

    genuine: bool
    detail: str
    fields: tuple[str, ...] = ()


def problem_in(content: bytes) -> Problem:
    """The problem a body describes, on one line, without secrets."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        text = content[:20_000].decode(errors="replace")
        return Problem(False, _line(re.sub(r"<[^<>]*>", " ", text) if text.lstrip().startswith("<") else text))
    if not isinstance(document, dict):
        return Problem(False, _line(str(document)[:1000]))
    said = next((str(document[key]) for key in ("detail", "message", "error", "title") if document.get(key)), "")
    errors = document.get("errors")
    fields = tuple(_line(_said(each)) for each in errors[:20]) if isinstance(errors, list) else ()
    genuine = bool({"title", "detail", "message", "error", "errors"} & document.keys())
    return Problem(genuine, _line(said or "; ".join(fields)), fields)


def hint_for(kind: type[PodlabError], provider: str) -> str:
    """What to do about an error of a kind."""
    if kind is KeyRefused and provider != "sandbox" and os.environ.get(KEY):
        return (
            f"It is the one of the environment variable {KEY}, which goes before a kept one: set it anew, or unset it."
        )
    return (HINTS | SANDBOX_HINTS if provider == "sandbox" else HINTS).get(kind, "")


def refusal(answer: Answer, *, label: str, provider: str, doing: str, write: bool) -> PodlabError:
    """The error that an answer without success is. `doing` is what was asked ("create pod a-1b2c")."""
    problem, status = problem_in(answer.content), answer.status
    kind = _kind(status, problem)
    if kind is None:
        kind = OutcomeUnknown if write else ProviderUnavailable
    said = problem.detail or "nothing more"
    message = f"{label} answered {status} when asked to {doing}: {said}"
    if status in range(300, 400):
        message = f"{label} sent a redirect ({status}) when asked to {doing}; it was not followed, with a key in hand."
    hint = hint_for(kind, provider)
    if kind is RateLimited:
        wait_s = retry_after_s(answer)
        return RateLimited(message, provider=provider, retry_after_s=wait_s, hint=f"Wait {wait_s:.0f} s.")
    if kind is BadOrder:
        return BadOrder(
            message, provider=provider, status=status, fields=problem.fields, hint="; ".join(problem.fields)
        )
    if kind is NotFound:
        return NotFound(message, hint=hint)
    if kind is NotAllowed and not problem.genuine:
        hint = "The request was turned away before it reached the API: look for a proxy or firewall in between."
    assert issubclass(kind, ProviderError)
    return kind(message, provider=provider, status=status, hint=hint)


def _kind(status: int, problem: Problem) -> type[PodlabError] | None:
    """The class of a refusal; None where it is open whether anything was done."""
    if not problem.genuine:
        return STATUSES[status] if status in EDGE else None
    if OPAQUE.search(problem.detail):
        return None
    if status in (400, 409):
        for pattern, kind in TEXTS:
            if re.search(pattern, problem.detail, re.IGNORECASE):
                return kind
    return STATUSES.get(status)


def retry_after_s(answer: Answer) -> float:
    """How long a 429 wants us to stay away: Retry-After (seconds or a date), else the window that is used up."""
    given = answer.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit() and len(given) < 9:
        return min(max(float(given), 1.0), 86400.0)
    try:
        left_s = (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        windows = re.findall(r"r=(\d{1,9});\s*t=(\d{1,9})", answer.headers.get("ratelimit", ""))
        left_s = max((float(reset) for rest, reset in windows if int(rest) == 0), default=RETRY_AFTER_S)
    return min(max(left_s, 1.0), 86400.0)


def _said(entry: Any) -> str:
    """One entry of `errors`: a text, or GraphQL's object with a message."""
    return str(entry.get("message", entry)) if isinstance(entry, dict) else str(entry)


def _line(text: str) -> str:
    return " ".join(redact(text[:10_000]).split())[:300]
