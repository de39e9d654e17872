"""Which models of the catalog a pod could serve, quickly and without asking the hub. Pure.

A rough answer for a list: `model fit` gives the exact one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from podlab.catalog import planner
from podlab.catalog.catalog import ModelEntry
from podlab.catalog.geometry import GpuRoom
from podlab.catalog.recipes import Recipe
from podlab.catalog.sources import HubSource, source_text
from podlab.errors import PodlabError
from podlab.units import memory_text, tokens_text

# Bits that one weight takes in a .gguf file of that type: llama.cpp's tools/quantize/README.md, its table of Llama 3.1.
_BITS = {
    "F32": 32.0, "F16": 16.0, "FP16": 16.0, "BF16": 16.0, "FP32": 32.0, "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7,
    "Q5_0": 5.54, "Q4_K_M": 4.89, "Q4_K_S": 4.67, "Q4_0": 4.66, "Q4": 4.89, "Q3_K_M": 3.99, "Q2_K": 3.16,
}  # fmt: skip
OVERHEAD_BYTES = 500_000_000
"""Beside the weights, for a short conversation."""


@dataclass(frozen=True)
class Screened:
    """Whether a model fits a pod (None: not known), and on what, or why not."""

    fits: bool | None
    how: str


def screen(entry: ModelEntry, recipes: Sequence[Recipe], rooms: Sequence[GpuRoom], host_bytes: int | None) -> Screened:
    """`rooms` are the pod's GPUs, `host_bytes` its free memory; None where it did not say."""
    if entry.format == "gguf" or entry.convert:
        return _by_file(entry, rooms, host_bytes)
    if not rooms:
        return Screened(False, "needs a GPU")
    try:
        plan = planner.plan(entry, entry.geometry, recipes, rooms, engine=entry.engine)
    except PodlabError as error:
        return Screened(False, error.message.removeprefix(f"{entry.id} "))
    if plan.fit is None or plan.fit.fits is None:
        return Screened(None, f"its shape is read when it is asked about: podlab model fit {entry.id}")
    context = f", {tokens_text(plan.context)} tokens" if plan.context else ""
    many = f"GPU {plan.gpus[0]}" if len(plan.gpus) == 1 else f"GPUs {', '.join(map(str, plan.gpus))}"
    return Screened(True, many + context)


def file_bytes(entry: ModelEntry) -> int | None:
    """About how large its .gguf file is: as the entry says, else from its parameters and the type in its name."""
    source = entry.source
    if isinstance(source, HubSource) and source.size_bytes:
        return source.size_bytes
    name = entry.convert or source_text(source)
    found = [bits for kind, bits in _BITS.items() if re.search(rf"(?<![A-Z0-9]){kind}(?![A-Z0-9_])", name.upper())]
    return round(entry.parameters * found[0] / 8) if found and entry.parameters else None


def _by_file(entry: ModelEntry, rooms: Sequence[GpuRoom], host_bytes: int | None) -> Screened:
    size = file_bytes(entry)
    if size is None:
        return Screened(None, "its size is not known")
    needed = size + OVERHEAD_BYTES
    on_gpus = sum(room.free_bytes for room in rooms)
    if needed <= on_gpus:
        return Screened(True, f"GPU, about {memory_text(size)}")
    if host_bytes is None:
        return Screened(None, "how much memory the pod has is not known")
    if needed <= on_gpus + host_bytes:
        return Screened(True, f"{'GPU and CPU' if rooms else 'CPU'}, about {memory_text(size)}")
    free = memory_text(on_gpus + host_bytes)
    return Screened(False, f"about {memory_text(size)}, and {free} of memory are free")
