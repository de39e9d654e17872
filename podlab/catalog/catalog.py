"""The models podlab knows by name, and the ways to say another one.

Entries come from models.toml beside this file and from the user's own models.toml in PODLAB_HOME, which wins. Both are
read when asked for, never at import. A repository of the Hub needs no entry: OWNER/REPO names it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from podlab.catalog import recipes, schema
from podlab.catalog.geometry import Geometry
from podlab.catalog.recipes import Recipe
from podlab.catalog.schema import Field
from podlab.catalog.sources import (
    BuiltinSource,
    FileSource,
    FolderSource,
    HubRepo,
    HubSource,
    PodSource,
    Source,
    is_repo,
    parse_source,
)
from podlab.errors import BadArgument, BadSettings, NotFound, StateDamaged
from podlab.settings import home

USER_FILE = "models.toml"
FILE = "models.toml"
ENGINES = ("llamacpp", "vllm", "sglang", "tgi", "trtllm")
Format = Literal["gguf", "safetensors"]
_SCHEMA: dict[str, Field] = {
    "summary": Field(str, "one line of text in quotes"),
    "engine": Field(str, "one of " + ", ".join(ENGINES), lambda value: value in ENGINES),
    "source": Field(str, 'where it is, such as "hf:OWNER/REPO/FILE.gguf" or "hf:OWNER/REPO"'),
    "parameters": schema.count("the number of weights, such as 4_000_000_000"),
    "active_parameters": schema.count("the number of weights at work per token, such as 3_000_000_000"),
    "context": schema.count("a number of tokens, such as 8192"),
    "licence": Field(str, "the licence's name in quotes"),
    "gated": Field(bool, "true or false"),
    "aliases": schema.words('other names, such as ["small"]'),
    "sha256": Field(str, "64 hexadecimal digits"),
    "size_bytes": schema.count("a whole number of bytes"),
    "tool_parser": Field(str, 'a name for --tool-call-parser, such as "hermes"'),
    "reasoning_parser": Field(str, 'a name for --reasoning-parser, such as "qwen3"'),
    "min_version": Field(str, 'the engine\'s oldest version that knows it, such as "0.17.0"'),
    "convert": Field(str, 'the type of the GGUF to be made from its safetensors, such as "q8_0"'),
    "geometry": Field(dict, "a table of the model's shape"),
    "source_of": schema.pairs("a table: of each number, the address it is from"),
}
_GEOMETRY: dict[str, Field] = {
    field.name: (
        Field(str, "text in quotes") if "str" in str(field.type)
        else schema.number("a number above 0") if "float" in str(field.type)
        else Field(int, "a whole number from 0", lambda value: value >= 0)
    )
    for field in dataclasses.fields(Geometry)
}  # fmt: skip
_FORM = 'Each model is a table: [models."NAME"]; a recipe is [[recipes]]'


@dataclass(frozen=True)
class ModelEntry:
    """A model by name. `parameters` counts weights, `context` tokens; None where no source gives it."""

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
    active_parameters: int | None = None
    """Weights at work per token; None for a model without experts, where it is all of them."""
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    min_version: str | None = None
    """The oldest version of its engine that knows it."""
    convert: str | None = None
    """Its GGUF does not exist on the Hub and is made from its safetensors first, of this type."""
    geometry: Geometry | None = None
    source_of: tuple[tuple[str, str], ...] = ()
    """Of the numbers, the address each is from."""

    @property
    def format(self) -> Format:
        """What its files are."""
        return "safetensors" if isinstance(self.source, HubRepo | FolderSource) else "gguf"


@dataclass(frozen=True)
class SendFile:
    """The model's file is on this computer: serve it from `path`, or send it to the pod first."""

    path: Path
    size_bytes: int


def entries() -> tuple[ModelEntry, ...]:
    """Every known model, the user's own last. Raises BadSettings naming field, value and fix."""
    known = dict(_packaged())
    for entry in _own()[0]:
        known.pop(entry.id, None)
        known[entry.id] = entry
    return tuple(known.values())


def recipes_of(entry: ModelEntry) -> tuple[Recipe, ...]:
    """The recipes for a model, the user's own first. Raises BadSettings naming field, value and fix."""
    return tuple(recipe for recipe in (*_own()[1], *recipes.packaged()) if recipe.model == entry.id)


def find(text: str) -> ModelEntry:
    """The model meant by `text`: an id, an alias, a path to a .gguf file, OWNER/REPO, or a source (hf:, pod:, folder:).

    Raises NotFound with what it could have meant, BadArgument for a malformed source.
    """
    known = entries()
    for entry in reversed(known):  # the user's own aliases win over ours
        if text == entry.id or text in entry.aliases:
            return entry
    if text.partition(":")[0] in ("hf", "pod", "file", "folder"):
        source = parse_source(text)
        return next((entry for entry in known if entry.source == source), _unknown(source, text))
    path = Path(text).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise NotFound(f"There is no file {text}.", hint="For a file that is on the pod already write pod:/PATH.")
        return ModelEntry(path.stem, FileSource(path.resolve()), summary=str(path))
    if is_repo(text) and not path.exists():
        return _unknown(parse_source(f"hf:{text}"), text)
    if (path / "config.json").is_file():
        return _unknown(FolderSource(str(path.resolve())), text)
    names = [name for entry in known for name in (entry.id, *entry.aliases)]
    close = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(close)}?" if close else "See: podlab model catalog --all."
    raise NotFound(
        f"There is no model {text!r}.", hint=f"{meant} OWNER/REPO of the Hub, a .gguf file and hf:OWNER/REPO/FILE.gguf "
        "work too."
    )  # fmt: skip


def _unknown(source: Source, text: str) -> ModelEntry:
    """A model that no entry names. A repository is called by its whole name, so that it is told from others' copies."""
    if isinstance(source, HubRepo):
        return ModelEntry(source.repo, source, summary=text, engine="vllm")
    return ModelEntry(
        source.stem, source, summary=text, engine="vllm" if isinstance(source, FolderSource) else "llamacpp"
    )


def resolve(entry: ModelEntry) -> SendFile | HubSource | PodSource | HubRepo | FolderSource:
    """What has to happen before it can be served: send a file from here, download it on the pod, or nothing.

    Raises NotFound when the file that should be here is not.
    """
    source = entry.source
    if isinstance(source, HubSource | PodSource | HubRepo | FolderSource):
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
    text = (resources.files("podlab.catalog") / FILE).read_text(encoding="utf-8")
    try:
        return {entry.id: entry for entry in read(text, f"podlab's own {FILE}")[0]}
    except BadSettings as error:
        raise StateDamaged(f"podlab is not installed whole: {error.message}", hint="Install it again.") from error


def _own() -> tuple[tuple[ModelEntry, ...], tuple[Recipe, ...]]:
    path = home() / USER_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return (), ()
    except (OSError, ValueError) as error:
        raise BadSettings(f"{path} cannot be read: {error}", hint="Mend it, or move it away.") from error
    return _own_parsed(text, str(path))


@cache
def _own_parsed(text: str, where: str) -> tuple[tuple[ModelEntry, ...], tuple[Recipe, ...]]:
    return read(text, where)


def read(text: str, where: str) -> tuple[tuple[ModelEntry, ...], tuple[Recipe, ...]]:
    """The models and recipes of a file. Raises BadSettings naming `where`, field, value and fix."""
    document = schema.document(text, where, {"models": dict, "recipes": list, "addresses": dict}, _FORM)
    addresses = document.get("addresses", {})
    found = tuple(_entry(name, fields, where, addresses) for name, fields in document.get("models", {}).items())
    owners: dict[str, str] = {}
    for entry in found:
        for name in (entry.id, *entry.aliases):
            if owners.setdefault(name, entry.id) != entry.id:
                raise BadSettings(f"{where}: {name!r} names both {owners[name]!r} and {entry.id!r}.",
                                  hint="Take it out of one of them.")  # fmt: skip
    return found, recipes.read(document, where)


def _entry(name: str, fields: Any, where: str, addresses: Mapping[str, str]) -> ModelEntry:
    at = f"{where}, [models.{name!r}]"
    if not isinstance(fields, dict):
        raise BadSettings(f"{at} is {fields!r}.", hint='Each model is a table: [models."NAME"]')
    given = schema.checked(fields, _SCHEMA, at, needed=() if is_repo(name) else ("source",))
    try:
        source = parse_source(
            given.pop("source", f"hf:{name}"), given.pop("sha256", None), given.pop("size_bytes", None)
        )
    except BadArgument as error:
        raise BadSettings(f"{at}: {error.message}", hint=error.hint) from error
    if isinstance(source, HubRepo | FolderSource) and "convert" not in given:
        given.setdefault("engine", "vllm")
    given["source_of"] = tuple((what, _address(text, addresses)) for what, text in given.get("source_of", {}).items())
    return ModelEntry(
        name, source, **(given | {"aliases": tuple(given.get("aliases", ())), "geometry": _geometry(given, at)})
    )


def _geometry(given: Mapping[str, Any], at: str) -> Geometry | None:
    """The shape an entry gives. What it says of its parameters and context need not be said twice."""
    if "geometry" not in given:
        return None
    fields = schema.checked(given["geometry"], _GEOMETRY, f"{at} geometry")
    said = {"parameters": "parameters", "active_parameters": "active_parameters", "context": "max_context"}
    common = {ours: given[theirs] for theirs, ours in said.items() if theirs in given}
    return Geometry(**(common | {"source": dict(given["source_of"]).get("geometry", at)} | fields))


def _address(text: str, addresses: Mapping[str, str]) -> str:
    """'recipes:Qwen/Qwen3-8B.yaml' -> the address that `recipes` stands for, and the rest."""
    short, _, rest = text.partition(":")
    return addresses[short] + rest if short in addresses else text
