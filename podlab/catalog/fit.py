"""Whether a model fits on GPUs under vLLM, what takes their memory, and what would fit. Pure.

    fit(geometry, gpus, wish) -> FitResult

`gpus` are those that would be used, in order: `wish.tensor_parallel * wish.data_parallel` of them. vLLM takes a share
of each GPU's total memory, refuses to start where less is free, and gives to keys and values what weights, activations
and the rest leave of the share (`podlab/catalog/memory.py`, `podlab/catalog/cache.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from podlab.catalog import memory
from podlab.catalog.cache import CacheLayout, Request, layout_of
from podlab.catalog.geometry import CacheDtype, Geometry, GpuRoom
from podlab.catalog.memory import Batch
from podlab.errors import BadArgument
from podlab.units import memory_text, tokens_text

DEFAULT_MEMORY_RATIO = 0.92
"""--gpu-memory-utilization where nobody says another: vllm/config/cache.py of vLLM 0.32; before 0.21 it was 0.9."""
_SHORTEST_CONTEXT = 512
"""A way out that leaves a request fewer tokens than this is none."""
UNBOUNDED_CONTEXT = 2**20
"""The longest context looked for where a model does not say its own."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants of a model: `context` tokens a request (None: the model's own), `concurrency` requests.

    `memory_ratio` is vLLM's --gpu-memory-utilization, a share of each GPU's total memory. Of what is None vLLM's
    default is taken.
    """

    context: int | None = None
    concurrency: int = 1
    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    memory_ratio: float = DEFAULT_MEMORY_RATIO
    ratio_of_free: bool = False
    """`memory_ratio` is a share of what stays free beside the weights, for the cache alone: TensorRT-LLM's
    --kv_cache_free_gpu_memory_fraction."""
    cache_dtype: CacheDtype = "auto"
    max_batched_tokens: int | None = None
    max_sequences: int | None = None
    eager: bool = False
    """Without CUDA graphs (--enforce-eager)."""
    prefix_caching: bool = True
    steps_ahead: int = 2
    """Steps under way at the same time: two with asynchronous scheduling, which is vLLM's default."""


@dataclass(frozen=True)
class GpuParts:
    """What one GPU's memory goes to, in bytes."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    """Free before the start; less than the total where others use the GPU."""
    budget_bytes: int
    """What the engine may take: its share of the total."""
    weights_bytes: int
    activations_bytes: int
    overhead_bytes: int
    """CUDA graphs, NCCL's buffers, kernels and workspaces."""
    cache_bytes: int
    """For keys, values and states: what is left of the budget. 0 where nothing is."""
    left_bytes: int
    """What stays free beside the engine; negative: so much is missing."""


@dataclass(frozen=True)
class Nearest:
    """A change with which it fits. `text` says it as options of `model fit`: "--context 16384"."""

    text: str
    wish: Wish
    gpus: int
    """How many of the same GPUs it takes."""


@dataclass(frozen=True)
class FitResult:
    """The verdict. `fits` is None where the geometry lacks what `missing` names."""

    fits: bool | None
    reason: str
    """One sentence: what binds, or what is missing."""
    wish: Wish
    context: int | None = None
    """Tokens a request that were judged: the wish's, else the model's own."""
    gpus: tuple[GpuParts, ...] = ()
    cache_bytes_per_token: float | None = None
    """What one more token of a long context costs each GPU."""
    cache_tokens: int | None = None
    """Tokens that fit in all, as vLLM's log counts them: full requests of the context, times the context."""
    largest_context: int | None = None
    """Tokens a request, at the wish's concurrency."""
    largest_concurrency: int | None = None
    """Requests of the full context at the same time, over all replicas."""
    nearest: tuple[Nearest, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Room:
    """What the arithmetic needs of one replica, found once."""

    layout: CacheLayout
    batch: Batch
    pages: int
    """Of the GPU that holds the fewest."""
    limit: int
    """Tokens the model was made for."""


def fit(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish) -> FitResult:
    """The verdict on a model on these GPUs. Raises BadArgument where the wish does not agree with `gpus` or itself."""
    _check(gpus, wish)
    result = _judge(geometry, gpus, wish)
    if result.fits is not False:
        return result
    return replace(result, nearest=tuple(_nearest(geometry, gpus, wish, result)))


def missing_fields(geometry: Geometry) -> tuple[str, ...]:
    """Fields of the geometry without which there is no arithmetic."""
    needed = ["weight_bytes", "layers", "hidden_size"]
    if geometry.latent_dim is None and geometry.stateless_layers != geometry.layers:
        needed += ["kv_heads", "head_dim"]
    if geometry.window_layers:
        needed.append("window")
    return tuple(name for name in needed if getattr(geometry, name) is None)


def default_wish(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish) -> Wish:
    """`wish` spread over all of `gpus`: the widest tensor parallelism that divides the model, the rest as replicas."""
    count = max(1, len(gpus))
    width = widest(geometry, count, expert_parallel=wish.expert_parallel)
    return replace(wish, tensor_parallel=width, data_parallel=count // width)


def widest(geometry: Geometry | None, count: int, *, expert_parallel: bool = False) -> int:
    """Of `count` GPUs, the most over which the model's tensors can be cut so that the rest are replicas; 1 where the
    model can be cut in no way. Where nothing is known of the model: all of them."""
    widths = (width for width in range(count, 0, -1) if count % width == 0)
    wishes = (Wish(tensor_parallel=width, expert_parallel=expert_parallel) for width in widths)
    return next((wish.tensor_parallel for wish in wishes if geometry is None or not _mismatch(geometry, wish)), 1)


def _check(gpus: Sequence[GpuRoom], wish: Wish) -> None:
    count = wish.tensor_parallel * wish.data_parallel
    if min(wish.tensor_parallel, wish.data_parallel) < 1 or len(gpus) != count:
        raise BadArgument(
            f"{wish.tensor_parallel} x {wish.data_parallel} GPUs are meant and {len(gpus)} given.",
            hint="Tensor parallelism times data parallelism has to be the number of GPUs.",
        )
    if not 0 < wish.memory_ratio <= 1:
        raise BadArgument(f"A share of {wish.memory_ratio} of a GPU's memory.", hint="Give a share up to 100%.")
    if wish.concurrency < 1 or (wish.context is not None and wish.context < 1):
        raise BadArgument("Less than one request, or than one token, is meant.", hint="Give numbers from 1.")


def _judge(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish) -> FitResult:
    """The verdict without what would fit instead."""
    if missing := missing_fields(geometry):
        return FitResult(None, f"Not known of the model: {', '.join(missing)}.", wish, missing=missing)
    if reason := _mismatch(geometry, wish):
        return FitResult(False, reason, wish)
    layout = layout_of(geometry, wish.tensor_parallel, wish.cache_dtype)
    if layout is None:
        return FitResult(None, "How the model keeps its context is not known.", wish, missing=("kv_heads",))
    batch = _batch(gpus, wish)
    parts = tuple(_parts(geometry, gpu, wish, batch) for gpu in gpus)
    pages = min(part.cache_bytes for part in parts) // layout.page_bytes
    room = _Room(layout, batch, pages, geometry.max_context or UNBOUNDED_CONTEXT)
    context = wish.context or room.limit
    each = layout.pages(_request(context, wish, batch))
    result = FitResult(
        True, "", wish, context, parts, layout.bytes_per_token(), int(pages / each * context) * wish.data_parallel,
        _largest_context(room, wish), pages // each * wish.data_parallel,
    )  # fmt: skip
    reason = _refusal(geometry, gpus, wish, result)
    return replace(result, fits=not reason, reason=reason or _assent(result))


def _mismatch(geometry: Geometry, wish: Wish) -> str:
    """Why the model cannot be cut so; "" where it can, as far as the geometry says."""
    width = wish.tensor_parallel
    heads = geometry.attention_heads
    if heads is not None and heads % width:
        return f"{width} GPUs cannot share its {heads} attention heads equally."
    kv_heads = geometry.kv_heads
    if kv_heads is not None and geometry.latent_dim is None and kv_heads % width and width % kv_heads:
        return f"{width} GPUs cannot share its {kv_heads} key and value heads equally."
    block, inner = geometry.quantization_block, geometry.expert_width
    if block and inner and not wish.expert_parallel and inner % (width * block):
        return (
            f"{width} GPUs would cut its experts' {inner} columns across the {block} that are quantised together; "
            "with expert parallelism they hold whole experts."
        )
    return ""


def _batch(gpus: Sequence[GpuRoom], wish: Wish) -> Batch:
    usual = memory.default_batch(gpus[0])
    return Batch(wish.max_batched_tokens or usual.tokens, wish.max_sequences or usual.sequences)


def _request(context: int, wish: Wish, batch: Batch) -> Request:
    return Request(context, batch.tokens * wish.steps_ahead, 2 if wish.prefix_caching else 1)


def _parts(geometry: Geometry, gpu: GpuRoom, wish: Wish, batch: Batch) -> GpuParts:
    weights = memory.weights_bytes(geometry, gpu, wish.tensor_parallel, wish.data_parallel)
    activations = memory.activations_bytes(geometry, wish.tensor_parallel, batch)
    overhead = memory.overhead_bytes(geometry, wish.tensor_parallel, batch, eager=wish.eager)
    if wish.ratio_of_free:
        fixed, room = weights + activations + overhead, memory.startable_bytes(gpu)
        budget = min(fixed, room) + round(max(0, room - fixed) * wish.memory_ratio)
    else:
        budget = round(memory.cuda_total_bytes(gpu) * wish.memory_ratio)
    cache = max(0, budget - weights - activations - overhead)
    taken = max(budget, weights + activations + overhead)
    return GpuParts(
        gpu.index, gpu.name, gpu.total_bytes, gpu.free_bytes, budget, weights, activations, overhead, cache,
        memory.startable_bytes(gpu) - taken,
    )  # fmt: skip


def _refusal(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish, result: FitResult) -> str:
    """Why it does not fit, the first reason that binds; "" where it fits."""
    if wish.context and geometry.max_context and wish.context > geometry.max_context:
        made_for, asked = tokens_text(geometry.max_context), tokens_text(wish.context)
        return f"The model was made for {made_for} tokens, not for {asked}."
    for part in result.gpus:
        share = "what is free" if wish.ratio_of_free else f"{wish.memory_ratio:.0%}"
        of_budget = f"{share} of GPU {part.index} ({part.name}), {memory_text(part.budget_bytes)},"
        if part.weights_bytes > part.budget_bytes:
            return f"Its weights, {memory_text(part.weights_bytes)} on each GPU, are more than {of_budget.rstrip(',')}."
        if not part.cache_bytes:
            needed = part.weights_bytes + part.activations_bytes + part.overhead_bytes
            return (
                f"Weights, activations and overhead, {memory_text(needed)} on each GPU, leave nothing of {of_budget} "
                "for the KV cache."
            )
        if part.left_bytes < 0:
            free = f"only {memory_text(part.free_bytes)}" if part.free_bytes else "nothing"
            return (
                f"GPU {part.index} ({part.name}) has {free} free, and vLLM does not start "
                f"where {wish.memory_ratio:.0%} of it, {memory_text(part.budget_bytes)}, and its context are not."
            )
    held = result.largest_concurrency or 0
    if held < wish.data_parallel:
        left = memory_text(min(part.cache_bytes for part in result.gpus))
        whose = "the GPU" if len(result.gpus) == 1 else "each GPU"
        return f"One request of {_tokens(result)} tokens needs more than the {left} that {whose} has for the KV cache."
    if held < wish.concurrency:
        return f"Only {held} requests of {_tokens(result)} tokens fit at the same time, not {wish.concurrency}."
    return ""


def _assent(result: FitResult) -> str:
    held = result.largest_concurrency
    return f"There is room for {held} request{'' if held == 1 else 's'} of {_tokens(result)} tokens at the same time."


def _tokens(result: FitResult) -> str:
    return tokens_text(result.context or 0)


def _largest_context(room: _Room, wish: Wish) -> int:
    """Tokens a request at the wish's concurrency; 0 where not one fits."""
    replica = -(-wish.concurrency // wish.data_parallel)

    def holds(context: int) -> bool:
        return room.layout.pages(_request(context, wish, room.batch)) * replica <= room.pages

    return _largest(holds, room.limit)


def _largest(holds: Callable[[int], bool], limit: int) -> int:
    """The largest number from 0 to `limit` that `holds`, which holds for each smaller one, too."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _nearest(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish, result: FitResult) -> Iterator[Nearest]:
    """Single changes with which it fits, the least first."""
    for text, changed, count in _changes(geometry, gpus, wish, result):
        others = [gpus[index % len(gpus)] for index in range(count)]
        if _judge(geometry, others, changed).fits:
            yield Nearest(text, changed, count)


def _changes(
    geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish, result: FitResult
) -> Iterator[tuple[str, Wish, int]]:
    count = len(gpus)
    shorter = _round_down(result.largest_context or 0)
    if _SHORTEST_CONTEXT <= shorter < (result.context or 0):
        yield f"--context {shorter}", replace(wish, context=shorter), count
    fewer = result.largest_concurrency or 0
    if 0 < fewer < wish.concurrency:
        yield f"--concurrency {fewer}", replace(wish, concurrency=fewer), count
    if wish.cache_dtype == "auto":
        yield "--cache fp8", replace(wish, cache_dtype="fp8"), count
    share = min(_startable_percent(gpu) for gpu in gpus) if not wish.ratio_of_free else 95
    if 10 <= share != round(wish.memory_ratio * 100):
        yield f"--memory {share}%", replace(wish, memory_ratio=share / 100), count
        if result.largest_context is not None:
            yield from _with_share(geometry, gpus, replace(wish, memory_ratio=share / 100))
    if not wish.expert_parallel and geometry.experts:
        yield "--expert-parallel", replace(wish, expert_parallel=True), count
    yield from _wider(geometry, gpus, wish)


def _with_share(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish) -> Iterator[tuple[str, Wish, int]]:
    """All the memory there is, and a context that fits into it."""
    shorter = _round_down(_judge(geometry, gpus, wish).largest_context or 0)
    if shorter >= _SHORTEST_CONTEXT and (wish.context is None or shorter < wish.context):
        yield f"--memory {wish.memory_ratio:.0%} --context {shorter}", replace(wish, context=shorter), len(gpus)


def _wider(geometry: Geometry, gpus: Sequence[GpuRoom], wish: Wish) -> Iterator[tuple[str, Wish, int]]:
    """The first larger number of the same GPUs on which it fits."""
    for count in (2, 4, 8, 16):
        wider = replace(wish, tensor_parallel=count, data_parallel=1)
        if count > len(gpus) and _judge(geometry, [gpus[0]] * count, wider).fits:
            yield f'--gpus "{count}x{gpus[0].name}"', wider, count
            return


def _startable_percent(gpu: GpuRoom) -> int:
    """The largest share of its total that vLLM would start with."""
    return min(95, int(memory.startable_bytes(gpu) / memory.cuda_total_bytes(gpu) * 100))


def _round_down(context: int) -> int:
    step = 1024 if context >= 8192 else 16
    return context // step * step
