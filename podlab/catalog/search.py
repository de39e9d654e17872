"""The hub's own search of models, read into what decides between them.

Fields: https://huggingface.co/docs/hub/api, GET /api/models with `expand`. A model's tags say its licence and mostly
how it is quantised; the headers of its weights, which the hub has read, what its weights are kept in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from podlab.catalog.hub import Hub
from podlab.errors import BadArgument
from podlab.types import HubModel

MOST = 100
_EXPAND = ("downloads", "gated", "gguf", "safetensors", "tags", "config")
_QUANTISED = ("awq", "gptq", "fp8", "nvfp4", "mxfp4", "bitsandbytes", "compressed-tensors", "exl2", "mlx")
_BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8, "I32": 32}
_QUANTISED_BITS = {"awq": 4.5, "gptq": 4.5, "nvfp4": 4.5, "mxfp4": 4.5, "fp8": 8.0, "gguf": 4.9}
"""About what a weight takes, where the hub does not count the packed ones as such: scales included, Q4_K_M of GGUF."""


def search(text: str, *, format: Literal["gguf", "safetensors"] | None = None, limit: int = 20) -> list[HubModel]:
    """The models for writing text that the hub finds for some words, the most downloaded first.

    Raises BadArgument for a limit it does not take, HttpError when the hub cannot be asked or refuses.
    """
    if not 1 <= limit <= MOST:
        raise BadArgument(f"--limit {limit} is not possible.", hint=f"Give a number from 1 to {MOST}.")
    filters = ["text-generation", *([format] if format else [])]
    found = Hub().search(
        {"search": text, "filter": filters, "sort": "downloads", "direction": "-1", "limit": str(limit),
         "expand": _EXPAND}
    )  # fmt: skip
    models = [model for each in found if (model := _model(each)) is not None]
    return sorted(models, key=lambda model: -model.downloads)[:limit]


def weight_bytes(model: HubModel) -> int | None:
    """About how much the weights take; None where the hub does not say how many there are."""
    if model.parameters is None:
        return None
    kind = model.dtype.partition(" ")[0]
    bits = _QUANTISED_BITS.get(kind.lower()) or _BITS.get(kind, 16)
    return round(model.parameters * bits / 8)


def _model(said: Mapping[str, Any]) -> HubModel | None:
    name = said.get("id") or said.get("modelId")
    if not isinstance(name, str):
        return None
    tags = [tag for tag in said.get("tags") or () if isinstance(tag, str)]
    kept, gguf = _table(said.get("safetensors")), _table(said.get("gguf"))
    is_gguf = bool(gguf) or "gguf" in tags
    count = gguf.get("total") if is_gguf else kept.get("total")
    licence = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    downloads = said.get("downloads")
    return HubModel(
        name, downloads if isinstance(downloads, int) else 0, count if isinstance(count, int) and count > 0 else None,
        "gguf" if is_gguf else "safetensors" if kept or "safetensors" in tags else "other",
        "GGUF" if is_gguf else _dtype(name, tags, kept, _table(said.get("config"))), licence,
        bool(said.get("gated")),
    )  # fmt: skip


def _dtype(name: str, tags: list[str], kept: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """How the weights are quantised, by the configuration, the tags or the name; else what most of them are."""
    method = _table(config.get("quantization_config")).get("quant_method")
    if isinstance(method, str) and method:
        return method.upper()
    words = {tag.lower() for tag in tags} | set(name.lower().replace("_", "-").split("-"))
    for known in _QUANTISED:
        if known in words:
            return known.upper()
    counts = {kind: n for kind, n in _table(kept.get("parameters")).items() if isinstance(n, int)}
    return max(counts, key=lambda kind: counts[kind], default="")


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
