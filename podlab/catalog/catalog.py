"""The models podlab knows by name, and the ways to say another one.

Entries come from models.toml beside this file and from the user's own models.toml in PODLAB_HOME, which wins. Both are
read when asked for, never at import.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from podlab.catalog.sources import BuiltinSource, FileSource, HubSource, PodSource, Source, parse_source
from podlab.errors import BadArgument, BadSettings, NotFound, StateDamaged
from podlab.settings import home

USER_FILE = "models.toml"
ENGINES = ("llamacpp",)
_KINDS: dict[str, tuple[type, str]] = {
    "summary": (str, "one line of text in quotes"),
    "engine": (str, "one of " + ", ".join(ENGINES)),
    "source": (str, 'where its file is, such as "hf:OWNER/REPO/FILE.gguf"'),
    "parameters": (int, "the number of weights, such as 4_000_000_000"),
    "context": (int, "a number of tokens, such as 8192"),
    "licence": (str, "the licence's name in quotes"),
    "gated": (bool, "true or false"),
    "aliases": (list, 'other names, such as ["small"]'),
    "sha256": (str, "64 hexadecimal digits"),
    "size_bytes": (int, "a whole number of bytes"),
}


@dataclass(frozen=True)
class ModelEntry:
    """A model by name. `parameters` counts weights, `context` tokens; None where nobody has said so."""

    id: str
    source: Source
    summary: str = ""
    engine: str = "llamacpp"
    parameters: int | None = None
    context: int | None = None
    licence: str = ""
    gated: bool = False
    """Whether the hub gives it only to accounts that accepted its terms; the download then needs HF_TOKEN."""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class SendFile:
    """The model's file is on this computer: serve it from `path`, or send it to the pod first."""

    path: Path
    size_bytes: int


def entries() -> tuple[ModelEntry, ...]:
    """Every known model, the user's own last. Raises BadSettings naming field, value and fix."""
    own = home() / USER_FILE
    known = dict(_packaged())
    if own.exists():
        for entry in _read(own.read_text(encoding="utf-8"), str(own)):
            known.pop(entry.id, None)
            known[entry.id] = entry
    return tuple(known.values())


def find(text: str) -> ModelEntry:
    """The model meant by `text`: an id, an alias, a path to a .gguf file, hf:OWNER/REPO/FILE.gguf or pod:/PATH.gguf.

    Raises NotFound with what it could have meant, BadArgument for a malformed hf: or pod: form.
    """
    known = entries()
    for entry in reversed(known):  # the user's own aliases win over ours
        if text == entry.id or text in entry.aliases:
            return entry
    if text.partition(":")[0] in ("hf", "pod", "file"):
        source = parse_source(text)
        return ModelEntry(source.stem, source, summary=text)
    path = Path(text).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise NotFound(f"There is no file {text}.", hint="For a file that is on the pod already write pod:/PATH.")
        return ModelEntry(path.stem, FileSource(path.resolve()), summary=str(path))
    names = [name for entry in known for name in (entry.id, *entry.aliases)]
    close = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(entry.id for entry in known)}."
    raise NotFound(f"There is no model {text!r}.", hint=f"{meant} A .gguf file or hf:OWNER/REPO/FILE.gguf works too.")


def resolve(entry: ModelEntry) -> SendFile | HubSource | PodSource:
    """What has to happen before it can be served: send a file from here, download it on the pod, or nothing.

    Raises NotFound when the file that should be here is not.
    """
    source = entry.source
    if isinstance(source, HubSource | PodSource):
        return source
    path = source.path if isinstance(source, FileSource) else _builtin(source)
    try:
        return SendFile(path, path.stat().st_size)
    except FileNotFoundError as error:
        raise NotFound(
            f"The file of model {entry.id!r} is gone: {path}", hint="Put it back, or name another."
        ) from error


def _builtin(source: BuiltinSource) -> Path:
    return Path(str(resources.files("podlab.catalog") / "data" / source.name))


@cache
def _packaged() -> dict[str, ModelEntry]:
    text = (resources.files("podlab.catalog") / "models.toml").read_text(encoding="utf-8")
    try:
        return {entry.id: entry for entry in _read(text, "podlab's own models.toml")}
    except BadSettings as error:
        raise StateDamaged(f"podlab is not installed whole: {error.message}", hint="Install it again.") from error


def _read(text: str, where: str) -> list[ModelEntry]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{where} is not TOML: {error}", hint="Mend that line.") from error
    models = document.get("models", {})
    stray = [key for key in document if key != "models"]
    if stray or not isinstance(models, dict):
        raise BadSettings(f"{where} holds {(stray or ['models'])[0]!r}, which is no model.",
                          hint='Each model is a table: [models."NAME"]')  # fmt: skip
    found = [_entry(name, fields, where) for name, fields in models.items()]
    owners: dict[str, str] = {}
    for entry in found:
        for name in (entry.id, *entry.aliases):
            if owners.setdefault(name, entry.id) != entry.id:
                raise BadSettings(f"{where}: {name!r} names both {owners[name]!r} and {entry.id!r}.",
                                  hint="Take it out of one of them.")  # fmt: skip
    return found


def _entry(name: str, fields: Any, where: str) -> ModelEntry:
    at = f"{where}, [models.{name!r}]"
    if not isinstance(fields, dict):
        raise BadSettings(f"{at} is {fields!r}.", hint='Each model is a table: [models."NAME"]')
    for field, value in fields.items():
        if field not in _KINDS:
            close = difflib.get_close_matches(field, _KINDS, n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"Fields: {', '.join(_KINDS)}."
            raise BadSettings(f"{at}: there is no field {field!r}.", hint=meant)
        kind, fix = _KINDS[field]
        right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if (
            not right
            or (kind is int and value <= 0)
            or (kind is list and not all(isinstance(item, str) for item in value))
            or (field == "engine" and value not in ENGINES)
        ):
            raise BadSettings(f"{at}: {field} is {value!r}.", hint=f"It has to be {fix}.")
    if "source" not in fields:
        raise BadSettings(f"{at}: source is missing.", hint=f"It has to be {_KINDS['source'][1]}.")
    given = dict(fields)
    try:
        source = parse_source(given.pop("source"), given.pop("sha256", None), given.pop("size_bytes", None))
    except BadArgument as error:
        raise BadSettings(f"{at}: {error.message}", hint=error.hint) from error
    return ModelEntry(name, source, **(given | {"aliases": tuple(given.get("aliases", ()))}))
