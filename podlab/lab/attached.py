"""Servers that somebody else runs: a name, a base URL and the name of a secret. `[attached]` in config.toml keeps them.

podlab asks them and never starts or stops them. Their state is checked like any other: ready when the server lists the
model, unhealthy when it answers something else, unreachable when it does not answer.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podlab import secrets, settings
from podlab.errors import AlreadyExists, BadArgument, BadSecret, BadSettings, EngineNotReady, HttpError, NotFound
from podlab.http import Http
from podlab.lab.workspace import Reached, Workspace
from podlab.types import Endpoint, EndpointState

if TYPE_CHECKING:
    from podlab.secrets import Secret

ENGINE = "openai"
PLACE = "elsewhere"
"""What stands where other endpoints have their pod."""
ASK_DEADLINE_S = 5.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Attached:
    """One of them. `url` has no slash at its end; `key_name` names the secret that is its key, "" for none."""

    name: str
    url: str
    model: str
    key_name: str = ""

    def key(self) -> Secret | None:
        """Its key. Raises BadSecret when the secret is gone."""
        if not self.key_name:
            return None
        key = secrets.find(self.key_name)
        if key is None:
            raise BadSecret(
                f"There is no secret {self.key_name!r}, which {self.name} wants.",
                hint=f"Keep it: podlab secret set {self.key_name}",
            )
        return key


def attach(url: str, *, name: str | None, model: str | None, key_name: str | None) -> Attached:
    """Ask a server what it serves, and keep how to reach it. Nothing is kept when it does not answer.

    Raises BadArgument for an address that is none or a model that is not there, AlreadyExists for a name in use.
    """
    url = _checked(url)
    candidate = Attached("", url, "", key_name or "")
    models = _models(candidate)
    if not models and not url.endswith("/v1"):
        candidate = Attached("", f"{url}/v1", "", key_name or "")
        models = _models(candidate)
    if not models:
        raise BadArgument(f"{url} lists no model.", hint="Write the address that ends in /v1.")
    if model is not None and model not in models:
        raise BadArgument(f"{url} does not serve {model!r}.", hint=f"It serves {', '.join(models[:5])}.")
    if model is None and len(models) > 1:
        raise BadArgument(
            f"{url} serves {len(models)} models.", hint=f"Choose one with --model, such as --model {models[0]}"
        )
    model = model or models[0]
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", model.rpartition("/")[2])[:63].strip("-._")
    if not _NAME.fullmatch(name):
        raise BadArgument(f"{name!r} cannot be an endpoint's name.", hint="Use letters, digits, dots and dashes.")
    made = Attached(name, candidate.url, model, key_name or "")

    def add(document: Any) -> None:
        import tomlkit

        table = document.setdefault("attached", tomlkit.table(is_super_table=True))
        if name in table:
            raise AlreadyExists(f"{name} is attached already.", hint=f"Detach it first: podlab model detach {name}")
        fields = {"url": made.url, "model": made.model} | ({"key": made.key_name} if made.key_name else {})
        table[name] = fields

    settings.update_config(add)
    return made


def detach(workspace: Workspace, name: str) -> None:
    """Forget a server; it goes on. Raises NotFound."""
    find(name)

    def remove(document: Any) -> None:
        document.get("attached", {}).pop(name, None)
        if not document.get("attached"):
            document.pop("attached", None)

    settings.update_config(remove)
    workspace.forget_reached(_id(name))


def all_attached() -> list[Attached]:
    """Every one, in the order they were attached. Raises BadSettings naming a wrong entry."""
    table = settings.read_config().get("attached", {})
    if not isinstance(table, dict):
        raise BadSettings("[attached] in config.toml is not a table.", hint="Mend it with: podlab config edit")
    return [_from_table(name, fields) for name, fields in table.items()]


def named(name: str | None) -> Attached | None:
    """The one of that name, or None."""
    return next((each for each in all_attached() if each.name == name), None)


def find(name: str) -> Attached:
    """The one of that name. Raises NotFound."""
    found = named(name)
    if found is None:
        raise NotFound(f"No server is attached as {name!r}.", hint="See: podlab model list")
    return found


def listing(asked: Sequence[Attached]) -> list[Endpoint]:
    """Each with its state, checked now and all at the same time."""
    if not asked:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(asked))) as threads:
        return list(threads.map(checked, asked))


def checked(attached: Attached) -> Endpoint:
    """An attached server as an endpoint, with its state checked now."""
    state, detail = _judged(attached)
    return Endpoint(
        _id(attached.name), attached.name, PLACE, attached.model, ENGINE, state, detail=detail,
        url=attached.url if state is EndpointState.READY else None,
    )  # fmt: skip


def reach(workspace: Workspace, attached: Attached) -> Reached:
    """The way to an attached server that is ready. Raises EngineNotReady saying its state, BadSecret without key."""
    key = attached.key()
    endpoint = checked(attached)
    if endpoint.url is None:
        raise EngineNotReady(
            f"{attached.name} at {attached.url} is {endpoint.state}: {endpoint.detail}",
            hint="Somebody else runs it: ask them, or podlab model detach " + attached.name,
        )
    reached = Reached(endpoint, attached.url, key, attached.model)
    workspace.keep_reached(reached)
    return reached


def _judged(attached: Attached) -> tuple[EndpointState, str]:
    try:
        models = _models(attached)
    except BadSecret as error:
        return EndpointState.UNHEALTHY, error.message
    except HttpError as error:
        return (EndpointState.UNHEALTHY if error.status else EndpointState.UNREACHABLE), error.message
    if attached.model in models:
        return EndpointState.READY, ""
    return EndpointState.UNHEALTHY, f"it serves {', '.join(models[:3]) or 'nothing'} instead of {attached.model}"


def _models(attached: Attached) -> list[str]:
    """What a server lists; [] for an answer that is no list of models. Raises HttpError, BadSecret."""
    http = Http(attached.url, key=attached.key())
    try:
        listed = http.get_json("/models", deadline_s=ASK_DEADLINE_S)
        return [str(model["id"])[:500] for model in listed["data"][:1000]]
    except HttpError as error:
        if error.status == 404:
            return []
        raise
    except (KeyError, TypeError):
        return []
    finally:
        http.close()


def _checked(url: str) -> str:
    """An address a client can use. Raises BadArgument."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadArgument(f"{url[:200]!r} is no address: {error}.", hint="Write http://HOST:PORT/v1") from error
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise BadArgument(f"{url[:200]!r} is no address of a server.", hint="Write http://HOST:PORT/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadArgument(
            "An address with a password, a query or a fragment is not kept.",
            hint="Keep the key with podlab secret set NAME, and name it: --key-env NAME",
        )
    return url.rstrip("/")


def _id(name: str) -> str:
    return f"attached-{name}"


def _from_table(name: str, fields: Any) -> Attached:
    try:
        found = Attached(name, fields["url"], fields["model"], fields.get("key", ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadSettings(f"[attached.{name}] lacks {error}.", hint="Mend it with: podlab config edit") from error
    if not all(isinstance(value, str) for value in (found.url, found.model, found.key_name)):
        raise BadSettings(
            f"[attached.{name}] holds something that is no text.", hint="Mend it with: podlab config edit"
        )
    return found
