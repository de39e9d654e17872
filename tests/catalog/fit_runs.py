"""Public runs of vLLM, and how far the arithmetic is from each."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from podlab.catalog import memory
from podlab.catalog.cache import Request, layout_of
from podlab.catalog.config_reader import geometry_of_config
from podlab.catalog.fit import DEFAULT_MEMORY_RATIO, Wish, fit
from podlab.catalog.geometry import CacheDtype, Geometry, GpuRoom

DATA = Path(__file__).parents[1] / "data"
GIB = 2**30


@dataclass(frozen=True)
class Run:
    """One start of vLLM as its log shows it; the fields are those of fit_runs.toml."""

    name: str
    url: str
    config: str
    gpu: str
    gpu_mib: int
    version: str
    weight_bytes: int | None = None
    gpus: int = 1
    graphs: bool = False
    memory_ratio: float = DEFAULT_MEMORY_RATIO
    context: int | None = None
    cache_dtype: CacheDtype = "auto"
    tokens: int | None = None
    sequences: int | None = None
    weights_gib: float | None = None
    cache_gib: float | None = None
    cache_tokens: int | None = None
    layout_gib: float | None = None
    """As cache_gib, where only the layout is judged by it."""
    note: str = ""


@dataclass(frozen=True)
class Judgement:
    """Errors in percent, ours above what was reported is positive; None where the log does not tell."""

    name: str
    version: str
    url: str
    weights_percent: float | None
    layout_percent: float | None
    cache_percent: float | None
    cache_of_gpu_percent: float | None


@cache
def runs() -> tuple[Run, ...]:
    document = tomllib.loads((DATA / "fit_runs.toml").read_text())
    return tuple(Run(**fields) for fields in document["runs"])


def config(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((DATA / "model_configs" / f"{name}.json").read_text())
    return found


def geometry(run: Run) -> Geometry:
    bare = geometry_of_config(config(run.config))
    own = round((bare.parameters or 0) * bare.dtype_bytes)
    return geometry_of_config(config(run.config), weight_bytes=run.weight_bytes or own)


def wish(run: Run) -> Wish:
    return Wish(
        context=run.context, tensor_parallel=run.gpus, memory_ratio=run.memory_ratio, cache_dtype=run.cache_dtype,
        max_batched_tokens=run.tokens, max_sequences=run.sequences, eager=not run.graphs,
        steps_ahead=2 if run.graphs else 1,
    )  # fmt: skip


def judged(run: Run) -> Judgement:
    """Weights and cache as `fit` says them; the layout by the bytes that vLLM itself found for the cache."""
    shape = geometry(run)
    gpu = GpuRoom(0, run.gpu, run.gpu_mib * 2**20, run.gpu_mib * 2**20)
    weights = memory.weights_bytes(shape, gpu, run.gpus, 1) / GIB
    tokens = None
    if (room := run.layout_gib or run.cache_gib) and run.cache_tokens and run.context:
        layout = layout_of(shape, run.gpus, run.cache_dtype)
        assert layout is not None
        pages = int(room * GIB) // layout.page_bytes
        tokens = pages / layout.pages(Request(run.context, run.tokens or 2048, 2)) * run.context
    found = None
    if run.cache_gib is not None:
        part = fit(shape, [gpu] * run.gpus, wish(run)).gpus[0]  # may be below nothing, as vLLM says it
        found = (part.budget_bytes - part.weights_bytes - part.activations_bytes - part.overhead_bytes) / GIB
    return Judgement(
        run.name, run.version, run.url, _percent(weights, run.weights_gib), _percent(tokens, run.cache_tokens),
        _percent(found, run.cache_gib if (run.cache_gib or 0) > 0 else None),
        None if found is None or run.cache_gib is None else 100 * (found - run.cache_gib) / (run.gpu_mib / 1024),
    )  # fmt: skip


def _percent(ours: float | None, reported: float | None) -> float | None:
    return None if ours is None or reported is None else 100 * (ours - reported) / reported
