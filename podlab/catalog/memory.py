"""What vLLM takes of each GPU besides keys and values: weights, activations, CUDA graphs, and the rest.

Weights are exact where the geometry is. Activations follow vLLM's profiling run, which computes one step of the most
tokens and samples for the most sequences. The other constants are rough: each says which lines of vLLM's logs it was
read off. They are judged by the runs of tests/data/fit_runs.toml, which have their addresses: see `benchmarks/fit.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from podlab.catalog.geometry import Geometry, GpuRoom

MIB = 2**20
GIB = 2**30

DRIVER_BYTES = round(0.45 * GIB)
"""What NVML counts of a GPU's total and CUDA does not: 24576 MiB by nvidia-smi are 23.58 GiB for vLLM on an RTX 3090,
81559 MiB are 79.19 GiB on an H100."""
CONTEXT_BYTES = round(0.5 * GIB)
"""A CUDA context, there before vLLM measures: 79.19 - 78.66 GiB on an H100, 23.56 - 23.05 GiB on an RTX 3090."""
OTHER_BYTES = round(0.3 * GIB)
"""Kernels, workspaces of the attention backend: what a start consumes beside the weights on one GPU."""
COLLECTIVE_BYTES = round(0.35 * GIB)
"""Buffers of NCCL and of the custom all-reduce, on each GPU of a group of several."""
GRAPH_BYTES_A_LAYER = MIB // 2
"""A CUDA graph of one batch size, by layer: 60 layers and 51 sizes take the 1.5 GiB that vLLM estimates since 0.21."""
LOGITS_COPIES = 2.2
"""Float32 copies of the logits at the height of sampling: 0.31 GiB for 256 sequences and 151936 words."""
_TRITON_NAMES = ("h100", "h200", "h20", "h800", "gh200", "b200", "b300", "gb200")
"""GPUs on which vLLM's kernels for mxfp4 pad the inside of an expert only; Marlin, on the others, pads both sides."""

_LARGE_BYTES, _LARGEST_BYTES = 70 * GIB, 160 * GIB


@dataclass(frozen=True)
class Batch:
    """The most of one step: `tokens` computed together, `sequences` sampled together (vLLM's --max-num-...)."""

    tokens: int
    sequences: int


def default_batch(gpu: GpuRoom) -> Batch:
    """What `vllm serve` takes by itself: `get_batch_defaults` in vllm/engine/arg_utils.py of vLLM 0.32."""
    if gpu.total_bytes >= _LARGEST_BYTES:
        return Batch(16384, 1024)
    if gpu.total_bytes >= _LARGE_BYTES and "a100" not in gpu.name.lower():
        return Batch(8192, 1024)
    return Batch(2048, 256)


def weights_bytes(geometry: Geometry, gpu: GpuRoom, tensor_parallel: int, data_parallel: int) -> int:
    """Weights on each GPU. Experts are divided over all GPUs, whether whole ones or each cut; the rest over the
    tensor-parallel group. Key and value heads that are fewer than the group are repeated."""
    divided = (geometry.weight_bytes or 0) - geometry.expert_bytes - geometry.replicated_bytes
    experts = geometry.expert_bytes * _padding(geometry, gpu)
    return round(
        divided / tensor_parallel
        + geometry.replicated_bytes
        + _repeated_bytes(geometry, tensor_parallel)
        + experts / (tensor_parallel * data_parallel)
    )


def _padding(geometry: Geometry, gpu: GpuRoom) -> float:
    """How much larger experts in mxfp4 are loaded than kept: gpt-oss-120b takes 65.97 GiB with Marlin, 64.38 GiB with
    Triton's kernels, and 60.8 GiB on disk."""
    width, hidden = geometry.expert_width, geometry.hidden_size
    if geometry.quantization != "mxfp4" or not width or not hidden:
        return 1.0
    if any(name in gpu.name.lower() for name in _TRITON_NAMES):
        return _padded(width, 256) / width
    return _padded(width, 128) * _padded(hidden, 256) / (width * hidden)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _repeated_bytes(geometry: Geometry, tensor_parallel: int) -> float:
    heads, width, layers, hidden = geometry.kv_heads, geometry.head_dim, geometry.layers, geometry.hidden_size
    if geometry.latent_dim or not (heads and width and layers and hidden) or tensor_parallel <= heads:
        return 0.0
    projections = 2 * hidden * heads * width * (layers - geometry.stateless_layers)
    return projections * _bytes_a_weight(geometry) * (1 / heads - 1 / tensor_parallel)


def _bytes_a_weight(geometry: Geometry) -> float:
    if geometry.weight_bytes and geometry.parameters:
        return geometry.weight_bytes / geometry.parameters
    return geometry.dtype_bytes


def activations_bytes(geometry: Geometry, tensor_parallel: int, batch: Batch) -> int:
    """The peak of a step beside the weights: its widest layer, or sampling. Where nothing says how wide a layer is
    inside, four times the hidden size, as in the first transformers."""
    hidden = geometry.hidden_size or 0
    inner = geometry.intermediate_size or 4 * hidden
    layer = batch.tokens * geometry.dtype_bytes * (2 * hidden + 3 * inner / tensor_parallel)
    sampling = batch.sequences * (geometry.vocab_size or 0) * 4 * LOGITS_COPIES
    return round(max(layer, sampling))


def graphs_bytes(geometry: Geometry, batch: Batch) -> int:
    """CUDA graphs of vLLM's default batch sizes: 1, 2, 4, each 8 up to 256, each 16 up to twice the sequences."""
    largest = min(2 * batch.sequences, 512)
    sizes = sum(1 for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest)
    return (geometry.layers or 0) * sizes * GRAPH_BYTES_A_LAYER


def overhead_bytes(geometry: Geometry, tensor_parallel: int, batch: Batch, *, eager: bool) -> int:
    """Within vLLM's budget, beside weights, activations and cache."""
    graphs = 0 if eager else graphs_bytes(geometry, batch)
    return OTHER_BYTES + graphs + (COLLECTIVE_BYTES if tensor_parallel > 1 else 0)


def cuda_total_bytes(gpu: GpuRoom) -> int:
    """A GPU's memory as vLLM sees it, of which it takes its share; at least a byte, whatever a card claims to have."""
    return max(1, gpu.total_bytes - DRIVER_BYTES)


def startable_bytes(gpu: GpuRoom) -> int:
    """What is free for vLLM once it has a context."""
    return min(gpu.free_bytes, cuda_total_bytes(gpu)) - CONTEXT_BYTES
