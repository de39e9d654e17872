"""What the VRAM arithmetic needs to know of a model: how big its weights are, and what a token of context costs.

A value is None where no source gives it; the arithmetic then says so instead of guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheDtype = Literal["auto", "fp8"]


@dataclass(frozen=True)
class Geometry:
    """A model's shape, as its config.json and its safetensors index give it.

    Sizes are in bytes over all files that are loaded; `parameters` and `active_parameters` count weights. `layers`
    counts every layer; of them `window_layers` attend only to the last `window` tokens and `stateless_layers` keep no
    keys and values at all (Mamba, linear attention: `state_bytes_per_sequence` is what those keep). With multi-head
    latent attention a token costs `latent_dim` values a layer, whatever the number of heads.
    """

    parameters: int | None = None
    active_parameters: int | None = None
    weight_bytes: int | None = None
    dtype_bytes: float = 2.0
    """Bytes of an activation, and of a cached value where the cache keeps the model's own type."""
    quantization: str | None = None
    """As config.json names it: "fp8", "awq", "gptq", "mxfp4", "compressed-tensors"; None for none."""
    layers: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    latent_dim: int | None = None
    intermediate_size: int | None = None
    """The widest inner size of a feed-forward layer; with experts, of all that one token goes through together."""
    window: int | None = None
    window_layers: int = 0
    global_kv_heads: int | None = None
    """Of layers that attend to everything, where it differs from `kv_heads` (Gemma 4)."""
    global_head_dim: int | None = None
    stateless_layers: int = 0
    state_bytes_per_sequence: int = 0
    cacheless_layers: int = 0
    """Of `layers`, those that keep nothing at all: feed-forward layers of their own (Nemotron-H), layers that read the
    keys of another (Gemma 3n)."""
    experts: int | None = None
    expert_width: int | None = None
    """The inner size of one expert, which tensor parallelism cuts."""
    quantization_block: int | None = None
    """Where weights are quantised in blocks of so many columns (fp8 of DeepSeek and Qwen): a cut may not halve one."""
    expert_bytes: int = 0
    """Of `weight_bytes`, those of experts that tokens are routed to; expert parallelism divides these."""
    replicated_bytes: int = 0
    """Of `weight_bytes`, those that each GPU of a tensor-parallel group holds whole: low-rank projections of latent
    attention, routers."""
    max_context: int | None = None
    """Tokens the model was made for."""
    source: str = ""
    """Where the numbers come from: an address, or the file they were read from."""


@dataclass(frozen=True)
class GpuRoom:
    """One GPU as the arithmetic and the planner see it. `free_bytes` is live where a pod was asked, else the total."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    endpoints: int = 0
    """How many endpoints of ours are pinned to it, from the pod's own records."""
