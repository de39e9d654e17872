"""The user's own models.toml: models registered and taken out, with everything else in it left as it is."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from podlab.catalog import catalog
from podlab.catalog.catalog import ModelEntry
from podlab.durable import locked, replace_file
from podlab.errors import AlreadyExists, BadArgument, BadSettings, NotFound
from podlab.settings import home


def register(name: str, fields: Mapping[str, Any]) -> ModelEntry:
    """Add a model under `name`; returns it as it will be read. A name podlab gives itself may be taken: yours wins.

    Raises AlreadyExists for a name that is in the file, BadArgument naming the field that is wrong. Nothing is written
    then.
    """
    if not name or not name.isprintable() or name != name.strip():
        raise BadArgument(f"{name!r} cannot be a model's name.", hint="Use letters, digits, dots and dashes.")

    def added(text: str) -> str:
        import tomlkit

        if name in _models(text):
            raise AlreadyExists(
                f"{name} is in your models.toml already.", hint=f"Take it out first: podlab model unregister {name}"
            )
        document = tomlkit.document()
        models = tomlkit.table(is_super_table=True)
        models.add(name, tomlkit.item(dict(fields)))
        document.add("models", models)
        ended = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return text + ended + tomlkit.dumps(document)

    _change(added)
    return catalog.find(name)


def unregister(name: str) -> None:
    """Take a model of the user's own out of the file; what `register` had added is gone to the last byte.

    Raises NotFound when the file has none of that name.
    """

    def removed(text: str) -> str:
        import tomlkit

        if name not in _models(text):
            ours = any(entry.id == name for entry in catalog.entries())
            raise NotFound(
                f"Your models.toml has no model {name!r}.",
                hint="It is one of podlab's own, which cannot be taken out." if ours else "See: podlab model catalog",
            )
        wanted = tomlkit.parse(text)
        wanted["models"].remove(name)
        left = tomllib.loads(tomlkit.dumps(wanted))
        cut = _cut(text, name)
        # Written by hand in another way (an inline table, say), it is taken out by the parser instead of by its lines.
        return cut if _same(cut, left) else tomlkit.dumps(wanted)

    _change(removed)


def _models(text: str) -> Mapping[str, Any]:
    models: Mapping[str, Any] = tomllib.loads(text).get("models", {})
    return models


def _cut(text: str, name: str) -> str:
    """The text without the tables of a model, and without the empty line in front of each."""
    lines = text.splitlines(keepends=True)
    kept: list[str] = []
    held: list[str] = []
    inside = False
    for line in lines:
        if (path := _header(line)) is not None:
            kept += held  # comments and empty lines belong to what follows them
            held = []
            inside = path[:2] == ("models", name)
            if inside and kept and not kept[-1].strip():
                kept.pop()
        if not inside:
            kept.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            held = []
        else:
            held.append(line)
    return "".join(kept + held)


def _header(line: str) -> tuple[str, ...] | None:
    """`[models."a.b".geometry]` -> ("models", "a.b", "geometry"); None for a line that opens no table."""
    if not line.lstrip().startswith("["):
        return None
    try:
        found: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    path: list[str] = []
    while isinstance(found, dict) and found:
        ((key, found),) = found.items()
        path.append(key)
    return tuple(path)


def _same(text: str, document: Mapping[str, Any]) -> bool:
    """Whether a text says the same; a table of no models is as good as none."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return {**found, "models": found.get("models", {})} == {**document, "models": document.get("models", {})}


def _change(change: Callable[[str], str]) -> None:
    """Change the file under a lock. What would make it unreadable is refused before anything is written."""
    path = home() / catalog.USER_FILE
    with locked(path.with_name("models.lock")):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        catalog.read(text, str(path))  # a damaged file is not made worse
        changed = change(text)
        try:
            catalog.read(changed, str(path))
        except BadSettings as error:
            raise BadArgument(error.message, hint=error.hint) from error
        if changed:
            replace_file(path, changed.encode())
        else:
            path.unlink(missing_ok=True)
