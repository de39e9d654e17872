"""Servers that somebody else runs: a name, a base URL and the name of a secret. `[attached]` in config.toml keeps them.

podlab asks them and never starts or stops them. Their state is checked like any other: ready when the server lists the
model, unhealthy when it answers something else, unreachable when it does not answer.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Attached:
    """One of them. `url` has no slash at its end; `key_name` names the secret that is its key, "" for none."""

    name: str
    url: str
    model: str
    key_name: str = ""
    key_in_clear: bool = False
    """The key may go to another machine over plain HTTP, where whoever is on the way reads it."""

    def key(self) -> Secret | None:
        """Its key. Raises BadSecret when the secret is gone, or would be sent where others can read it."""
        if not self.key_name:
            return None
        self.check_key()
        key = secrets.find(self.key_name)
        if key is None:
            raise BadSecret(
                f"There is no secret {self.key_name!r}, which {self.name} wants.",
                hint=f"Keep it: podlab secret set {self.key_name}",
            )
        return key

    def check_key(self) -> None:
        """Raise BadSecret when its key would go to another machine over plain HTTP and nobody allowed that."""
        if self.key_name and not self.key_in_clear and not _is_private(self.url):
            raise BadSecret(
                f"{self.key_name} would go to {urllib.parse.urlsplit(self.url).hostname} over plain HTTP, where others "
                "can read it.",
                hint="Write https://, reach it through a tunnel, or allow it: podlab model attach URL --key-in-clear",
            )


def candidate(url: str, *, name: str | None, key_name: str | None, key_in_clear: bool = False) -> Attached:
    """What is known of a server before it is asked. Raises BadArgument, BadSecret for a key that others could read."""
    if name is not None:
        _check_name(name)
    made = Attached(name or "", _checked(url), "", key_name or "", key_in_clear)
    made.check_key()
    return made


def attach(
    workspace: Workspace, url: str, *, name: str | None, model: str | None, key_name: str | None,
    key_in_clear: bool = False,
) -> Attached:  # fmt: skip
    """Ask a server what it serves, and keep how to reach it. Nothing is kept when it does not answer.

    Raises BadArgument for an address that is none or a model that is not there, BadSecret for a key that others could
    read, AlreadyExists for a name in use.
    """
    from podlab.lab import names  # which knows of this module

    asked = candidate(url, name=name, key_name=key_name, key_in_clear=key_in_clear)
    url = asked.url
    models = _models(asked)
    if not models and not url.endswith("/v1"):
        asked = replace(asked, url=f"{url}/v1")
        models = _models(asked)
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
    _check_name(name)
    made = replace(asked, name=name, model=model)
    with names.claimed(workspace, name):
        settings.update_config(lambda document: _add(document, made))
    return made


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadArgument(f"{name!r} cannot be an endpoint's name.", hint="Use letters, digits, dots and dashes.")


def _add(document: Any, made: Attached) -> None:
    """Put it into [attached]. Raises AlreadyExists: somebody may have taken the name since it was looked at."""
    import tomlkit

    table = document.setdefault("attached", tomlkit.table(is_super_table=True))
    if made.name in table:
        raise AlreadyExists(
            f"{made.name} is attached already.", hint=f"Detach it first: podlab model detach {made.name}"
        )
    fields: dict[str, str | bool] = {"url": made.url, "model": made.model}
    fields |= {"key": made.key_name} if made.key_name else {}
    fields |= {"key_in_clear": True} if made.key_in_clear else {}
    table[made.name] = fields


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
        if error.status == 0:
            raise HttpError(
                error.message, sent=error.sent, hint="Is it running, and its address whole: http://HOST:PORT/v1?"
            ) from error
        raise
    except (KeyError, TypeError):
        return []
    finally:
        http.close()


def _checked(url: str) -> str:
    """An address a client can use. Raises BadArgument, which shows nothing that may be a password."""
    shown = re.split(r"[?#]", url.rpartition("@")[2])[0][:200]
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadArgument(f"{shown!r} is no address of a server.", hint="Write http://HOST:PORT/v1") from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadArgument(
            "An address with a password, a query or a fragment is not kept.",
            hint="Keep the key with podlab secret set NAME, and name it: --key-env NAME",
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise BadArgument(f"{shown!r} is no address of a server.", hint="Write http://HOST:PORT/v1")
    return url.rstrip("/")


def _is_private(url: str) -> bool:
    """Whether nobody on the way reads what goes there: it is encrypted, or does not leave this computer."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _id(name: str) -> str:
    return f"attached-{name}"


def _from_table(name: str, fields: Any) -> Attached:
    try:
        found = Attached(
            name, fields["url"], fields["model"], fields.get("key", ""), fields.get("key_in_clear", False) is True
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadSettings(f"[attached.{name}] lacks {error}.", hint="Mend it with: podlab config edit") from error
    if not all(isinstance(value, str) for value in (found.url, found.model, found.key_name)):
        raise BadSettings(
            f"[attached.{name}] holds something that is no text.", hint="Mend it with: podlab config edit"
        )
    return found
