"""A model's geometry read where the model is: a repository of the Hub, a folder, a GGUF file. Never its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from podlab.catalog.catalog import ModelEntry, SendFile, resolve
from podlab.catalog.config_reader import geometry_of_config
from podlab.catalog.geometry import Geometry
from podlab.catalog.headers import GgufHeader, TooShort, gguf_header, safetensors_header
from podlab.catalog.hub import Hub, HubFile, Repository
from podlab.catalog.sources import FolderSource, HubRepo, HubSource, PodSource
from podlab.errors import BadArgument, HttpError, NotFound

T = TypeVar("T")

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PART = re.compile(r"(.*)-00001-of-(\d{5})\.gguf")
_READ_BYTES = 2**20
_LISTED_LIMIT = 2**27


def geometry_of(entry: ModelEntry) -> Geometry:
    """The shape of a model, from its catalog entry where that says enough, else from where it is.

    Raises NotFound, GatedRepo or HttpError as the hub does, BadArgument for files that are none of a model or that
    only a pod has.
    """
    source = resolve(entry)
    if isinstance(source, HubRepo):
        return _catalogued(entry) or _of_repository(source)
    if isinstance(source, HubSource):
        return _catalogued(entry) or _of_hub_file(source)
    if isinstance(source, SendFile):
        return geometry_of_file(source.path)
    if isinstance(source, FolderSource) and not source.on_pod:
        return geometry_of_folder(Path(source.path))
    assert isinstance(source, FolderSource | PodSource)
    raise BadArgument(
        f"{entry.id} is on the pod only, so its shape cannot be read here.",
        hint="Name the repository it came from, or a copy on this computer.",
    )


def _catalogued(entry: ModelEntry) -> Geometry | None:
    """The entry's own shape, if the arithmetic can be done with it."""
    known = entry.geometry
    enough = known is not None and known.weight_bytes and known.layers and known.hidden_size
    return known if enough else None


def _of_repository(source: HubRepo) -> Geometry:
    hub = Hub()
    repository = hub.repository(source.repo, source.revision)
    if repository.file("config.json") is None:
        gguf = [file.name for file in repository.files if file.name.endswith(".gguf")]
        hint = f"Name one of its files: hf:{source.repo}/{gguf[0]}" if gguf else f"See {hub.endpoint}/{source.repo}"
        raise NotFound(f"{source.repo} holds no config.json, so no model that vLLM serves.", hint=hint)
    document = hub.document(repository, "config.json")
    weight_bytes, tensors, counted = _weights_of(hub, repository)
    return geometry_of_config(
        document, weight_bytes=weight_bytes, parameter_count=repository.parameters or counted, tensors=tensors,
        source=f"{hub.endpoint}/{source.repo}/blob/{repository.commit}/config.json",
    )  # fmt: skip


def _weights_of(hub: Hub, repository: Repository) -> tuple[int | None, Collection[str], int | None]:
    """Bytes and names of a repository's tensors, and how many weights they are where a header says it."""
    if repository.file(INDEX) is not None:
        try:
            return *_of_index(hub.document(repository, INDEX), repository.files), None
        except HttpError:  # the index of a very large model is longer than any answer that is read
            sizes = [file.size_bytes for file in repository.files if file.name.endswith(".safetensors")]
            return (sum(size for size in sizes if size) or None), (), None
    if repository.file(SINGLE) is not None:
        listed = hub.header(repository, SINGLE, safetensors_header)
        return listed.total_bytes, listed.names, listed.parameters
    weights = [file for file in repository.files if file.name.endswith((".safetensors", ".bin"))]
    best = [file for file in weights if file.name.endswith(".safetensors")] or weights
    return (sum(file.size_bytes or 0 for file in best) or None), (), None


def _of_index(index: Mapping[str, Any], files: Collection[HubFile]) -> tuple[int | None, Collection[str]]:
    """Bytes and names of what an index lists. Files' own sizes come first: an index may be out of date."""
    listed = index.get("weight_map")
    tensors: Mapping[str, Any] = listed if isinstance(listed, dict) else {}
    sizes = {file.name: file.size_bytes for file in files}
    parts = [sizes.get(str(name)) for name in set(map(str, tensors.values()))]
    if parts and all(parts):
        return sum(size for size in parts if size), tensors.keys()
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return (round(total) if isinstance(total, int | float) and total > 0 else None), tensors.keys()


def geometry_of_folder(folder: Path) -> Geometry:
    """The shape of a model in safetensors in a folder. Raises BadArgument where there is none."""
    document = _object(folder / "config.json")
    files = tuple(HubFile(path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    tensors: Collection[str] = ()
    counted = None
    if (folder / INDEX).is_file():
        weight_bytes, tensors = _of_index(_object(folder / INDEX), files)
    elif (folder / SINGLE).is_file():
        listed = _beginning(folder / SINGLE, safetensors_header)
        weight_bytes, tensors, counted = listed.total_bytes, listed.names, listed.parameters
    else:
        weight_bytes = sum(file.size_bytes or 0 for file in files) or None
    return geometry_of_config(
        document, weight_bytes=weight_bytes, parameter_count=counted, tensors=tensors,
        source=str(folder / "config.json"),
    )  # fmt: skip


def geometry_of_file(path: Path) -> Geometry:
    """The shape of a model in a GGUF file. Raises BadArgument where it is none."""
    size = sum(part.stat().st_size for part in _parts(path))
    return _of_gguf(_beginning(path, gguf_header), size, str(path))


def _parts(path: Path) -> list[Path]:
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    names = (f"{match[1]}-{number:05d}-of-{match[2]}.gguf" for number in range(1, int(match[2]) + 1))
    return [path.with_name(name) for name in names if path.with_name(name).exists()]


def _of_hub_file(source: HubSource) -> Geometry:
    hub = Hub()
    repository = hub.repository(source.repo, source.revision)
    if repository.file(source.file) is None:
        near = [file.name for file in repository.files if file.name.endswith(".gguf")][:3]
        hint = f"It holds {', '.join(near)}." if near else f"See {hub.endpoint}/{source.repo}/tree/main"
        raise NotFound(f"{source.repo} holds no {source.file}.", hint=hint)
    wanted = {str(part) for part in _part_names(source.file)}
    size = sum(file.size_bytes or 0 for file in repository.files if file.name in wanted)
    header = hub.header(repository, source.file, gguf_header)
    return _of_gguf(header, size, f"{hub.endpoint}/{source.repo}/blob/{repository.commit}/{source.file}")


def _part_names(name: str) -> list[str]:
    match = _PART.fullmatch(name)
    if match is None:
        return [name]
    return [f"{match[1]}-{number:05d}-of-{match[2]}.gguf" for number in range(1, int(match[2]) + 1)]


def _of_gguf(header: GgufHeader, size: int, source: str) -> Geometry:
    """llama.cpp keeps keys and values in half precision, whatever its weights are in."""
    layers, hidden, heads = (
        header.number(name) for name in ("block_count", "embedding_length", "attention.head_count")
    )
    kv_heads, attending = _gguf_heads(header, heads, layers)
    width = header.number("attention.key_length") or (hidden // heads if hidden and heads else None)
    window = header.number("attention.sliding_window")
    every = header.number("attention.sliding_window_pattern") or _WINDOW_PATTERNS.get(str(_architecture(header)), 0)
    windowed = layers - layers // every if window and every and layers else 0
    latent = header.number("attention.kv_lora_rank")
    geometry = Geometry(
        weight_bytes=size or None,
        quantization="gguf",
        layers=layers,
        hidden_size=hidden,
        vocab_size=header.lengths.get("tokenizer.ggml.tokens") or header.number("vocab_size"),
        attention_heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        latent_dim=latent + (header.number("rope.dimension_count") or 0) if latent else None,
        intermediate_size=header.number("feed_forward_length"),
        window=window if windowed else None,
        window_layers=windowed,
        experts=header.number("expert_count") or None,
        max_context=header.number("context_length"),
        source=source,
    )
    if layers is None or attending is None or attending == layers:
        return geometry
    inner = header.number("ssm.inner_size") or 0
    state = inner * (header.number("ssm.state_size") or 0) * 4
    return replace(geometry, stateless_layers=layers - attending, state_bytes_per_sequence=(layers - attending) * state)


_WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2, "cohere2": 4}
"""Where the file does not say which layers attend to a window: each so-manyth to everything (llama.cpp's
llama-model.cpp)."""


def _architecture(header: GgufHeader) -> object:
    return header.values.get("general.architecture")


def _gguf_heads(header: GgufHeader, heads: int | None, layers: int | None) -> tuple[int | None, int | None]:
    """Key and value heads of a layer, and how many layers have any; hybrids say it layer by layer."""
    listed = header.numbers("attention.head_count_kv")
    if listed:
        attending = [count for count in listed if count > 0]
        return (max(attending) if attending else None), len(attending)
    return header.number("attention.head_count_kv") or heads, layers


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LISTED_LIMIT:
            raise ValueError("it is too long")
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadArgument(f"{path} cannot be read: {reason}", hint="Name a folder that holds a whole model.") from error
    if not isinstance(document, dict):
        raise BadArgument(f"{path} is not a JSON object.", hint="Name a folder that holds a whole model.")
    return document


def _beginning(path: Path, parse: Callable[[bytes, str], T]) -> T:
    """What `parse` reads off the beginning of a file, as much as it needs."""
    data = b""
    try:
        with path.open("rb") as file:
            while True:
                try:
                    return parse(data, str(path))
                except TooShort as short:
                    more = file.read(max(_READ_BYTES, short.needed - len(data)))
                    if not more:
                        raise BadArgument(f"{path} ends within its header.", hint="Fetch it again.") from short
                    data += more
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {error.strerror}", hint="Look at its permissions.") from error
