"""What `podlab init` does: a company's key that is accepted, an SSH key, limits on what pods may cost. Repeatable.

Each question has what is in force as its default, so that nobody to answer changes nothing. The key is checked against
the company before it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podlab import secrets, settings
from podlab.errors import BadArgument, BadSettings, PodlabError
from podlab.events import Ask, Notice, Stage, Work
from podlab.lab import hidden
from podlab.lab.workspace import Workspace
from podlab.providers.base import Provider
from podlab.renting import Account
from podlab.secrets import Secret
from podlab.types import Check
from podlab.units import usd_text

KEY = "RUNPOD_API_KEY"
COMPANIES = ("runpod", "sandbox")
_TRIES = 3
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("rent.gpu_preferences", "Which GPUs are tried without --gpu, in this order?"),
    ("rent.budget_usd", "What may a pod cost in its whole life, in dollars?"),
    ("rent.ttl", "How long may a pod live?"),
    ("rent.idle", "How long may a pod be idle before it is ended?"),
)
"""Settings that are asked about, each with its question."""


@dataclass(frozen=True)
class Prepared:
    """What was found and written. `settings` are lines as they stand in config.toml now."""

    provider: str
    simulated: bool
    checks: tuple[Check, ...]
    settings: tuple[str, ...]
    next: tuple[str, ...]


@dataclass(frozen=True)
class Doors:
    """What the outside has to give: a company with a key that is not kept yet, and podlab's own SSH key, made at need.

    `ssh_key` returns where it is, and whether it was made just now.
    """

    company: Callable[[str, Secret | None], Provider]
    ssh_key: Callable[[], tuple[str, bool]]
    read_key: Callable[[str], Secret] = hidden.read
    hand_over: Callable[[str, Secret], None] = lambda name, value: None
    """To whoever tends rented pods with the key of before."""


def prepare(workspace: Workspace, given: Mapping[str, str], doors: Doors) -> Work[Prepared]:
    """All of it. `given` are answers in advance: "provider" and names of settings.

    Raises KeyRefused and BadSecret about the key, BadSettings for an answer that cannot be; nothing is written then.
    """
    provider = yield from _company(workspace, given.get("provider"))
    checks = [(yield from _key(provider, doors))]
    values = {}
    for name, question in QUESTIONS:
        values[name] = yield from _value(workspace, name, question, given.get(name))
    path, made = doors.ssh_key()
    checks.append(Check("SSH key", "ok", f"made: {path}" if made else path))
    written = {"provider": provider} | values
    for name, text in written.items():
        settings.store(name, text)
        workspace.override(name, None)
    return Prepared(
        provider, provider == "sandbox", tuple(checks), tuple(f"{name} = {text}" for name, text in written.items()),
        ("podlab pod doctor", "podlab pod offers", "podlab pod plan", "podlab pod create NAME"),
    )  # fmt: skip


def _company(workspace: Workspace, given: str | None) -> Work[str]:
    if given is not None:
        if given not in COMPANIES:
            raise BadArgument(f"Nothing is rented from {given!r}.", hint=f"Choose one of {', '.join(COMPANIES)}.")
        return given
    now = workspace.value("provider")
    choices = ("runpod: real machines for real money", "sandbox: a pretended company, for trying (simulated)")
    answer = yield Ask("Which company are pods to be rented from?", "choice", f"Now it is {now}.", choices)
    return COMPANIES[answer] if isinstance(answer, int) else str(now)


def _key(provider: str, doors: Doors) -> Work[Check]:
    """A key that the company accepts, kept. The one that is there is asked about first."""
    if provider == "sandbox":
        yield Stage("key", "Asking the sandbox")
        account = doors.company(provider, None).account()
        return Check("key", "ok", f"the sandbox's own (simulated), {_funds(account)}")
    kept = secrets.find(KEY)
    if kept is not None:
        yield Stage("key", f"Showing {provider} the key that is kept")
        try:
            account = doors.company(provider, kept).account()
            return Check("key", "ok", f"the one that was kept is accepted, {_funds(account)}")
        except PodlabError as error:
            yield Notice(f"The key that is kept cannot be used: {error.message}", "warning")
    entered = doors.read_key(KEY)
    yield Stage("key", f"Showing it to {provider}")
    account = doors.company(provider, entered).account()
    secrets.keep(KEY, entered)
    if kept is not None and os.environ.get(KEY):
        yield Notice(secrets.shadowed(KEY), "warning")
    doors.hand_over(KEY, entered)
    return Check("key", "ok", f"accepted and kept, {_funds(account)}")


def _funds(account: Account) -> str:
    balance = "balance not told" if account.balance_usd is None else f"balance {usd_text(account.balance_usd)}"
    return f"{account.email}, {balance}" if account.email else balance


def _value(workspace: Workspace, name: str, question: str, given: str | None) -> Work[str]:
    """A setting as a person writes it; asked again when the answer cannot be."""
    declared = settings.setting(name)
    if given is not None:
        return declared.text(settings.parse(name, given))
    now = declared.text(workspace.value(name))
    for left in reversed(range(_TRIES)):
        answer = yield Ask(question, "text", default=now)
        if not isinstance(answer, str):
            return now
        try:
            return declared.text(settings.parse(name, answer))
        except BadSettings as error:
            if not left:
                raise
            yield Notice(f"{error.message} {error.hint}", "warning")
    return now
