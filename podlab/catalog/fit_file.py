"""Whether a GGUF model fits under llama.cpp: on GPUs that share its layers, or in a computer's memory. Pure.

llama.cpp takes the whole context of all slots at its start: the weights as they are in the file, keys and values in
half precision, and a buffer for computing a batch of 512 tokens, of which the logits are the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from podlab.catalog.cache import Request, layout_of
from podlab.catalog.fit import FitResult, GpuParts, Nearest, Wish, missing_fields
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.memory import CONTEXT_BYTES, MIB
from podlab.units import memory_text, tokens_text

UBATCH_TOKENS = 512
"""llama.cpp's --ubatch-size where nobody says another."""
BUFFER_BYTES = 16 * MIB
"""What the compute buffer holds beside logits and hidden vectors: 300.75 MiB in all for 151936 words on CUDA."""
DEFAULT_CONTEXT = 8192
"""Tokens a conversation where nobody says: what `model start` gives llama.cpp."""


@dataclass(frozen=True)
class HostRoom:
    """A computer's own memory, for a model that runs on its CPU."""

    total_bytes: int
    free_bytes: int


def fit_file(geometry: Geometry, place: Sequence[GpuRoom] | HostRoom, wish: Wish) -> FitResult:
    """The verdict on a GGUF model, all of whose layers are to be on these GPUs, or in this memory."""
    if missing := missing_fields(geometry):
        return FitResult(None, f"Not known of the model: {', '.join(missing)}.", wish, missing=missing)
    result = _judge(geometry, place, wish)
    return result if result.fits is not False else replace(result, nearest=tuple(_nearest(geometry, place, result)))


def _judge(geometry: Geometry, place: Sequence[GpuRoom] | HostRoom, wish: Wish) -> FitResult:
    context = wish.context or min(geometry.max_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    rooms = _rooms(place)
    on_gpu = not isinstance(place, HostRoom)
    weights = geometry.weight_bytes or 0
    buffer = _buffer_bytes(geometry)
    fixed = len(rooms) * (buffer + (CONTEXT_BYTES if on_gpu else 0))
    free = sum(room.free_bytes for room in rooms)
    each = _cache_bytes(geometry, context)
    per_token = layout.bytes_per_token() if (layout := layout_of(geometry, 1)) else None
    room_for_cache = free - weights - fixed
    held = max(0, room_for_cache // each) if each else wish.concurrency
    longest = _longest(geometry, max(0, room_for_cache) // wish.concurrency)
    if geometry.max_context and context > geometry.max_context:
        made_for, asked = tokens_text(geometry.max_context), tokens_text(context)
        reason = f"The model was made for {made_for} tokens, not for {asked}."
        return FitResult(False, reason, wish, context, largest_context=longest)
    needed = weights + fixed + each * wish.concurrency
    parts = tuple(
        _part(room, room.free_bytes / free if free else 0.0, weights, buffer, each * wish.concurrency, on_gpu=on_gpu)
        for room in rooms
    )
    where = f" on {len(rooms)} GPU{'s' if len(rooms) > 1 else ''}" if on_gpu else " in memory"
    if needed <= free:
        reason = f"It takes {memory_text(needed)} of the {memory_text(free)} that are free{where}."
    elif weights > free:
        reason = f"Its weights, {memory_text(weights)}, are more than the {memory_text(free)} that are free{where}."
    else:
        reason = (
            f"{memory_text(needed)} are needed with {wish.concurrency} x {tokens_text(context)} tokens of context, and "
            f"{memory_text(free)} are free{where}."
        )
    return FitResult(
        needed <= free, reason, wish, context, parts, per_token, held * context, longest, held,
    )  # fmt: skip


def _rooms(place: Sequence[GpuRoom] | HostRoom) -> Sequence[GpuRoom]:
    if isinstance(place, HostRoom):
        return (GpuRoom(0, "memory", place.total_bytes, place.free_bytes),)
    return place


def _part(
    room: GpuRoom, share: float, weights: int, buffer: int, cache: int, *, on_gpu: bool
) -> GpuParts:  # fmt: skip
    """What a GPU gets of the layers, by what is free on it."""
    mine, kept = round(weights * share), round(cache * share)
    overhead = CONTEXT_BYTES if on_gpu else 0
    return GpuParts(
        room.index, room.name, room.total_bytes, room.free_bytes, room.free_bytes, mine, buffer, overhead, kept,
        room.free_bytes - mine - buffer - overhead - kept,
    )  # fmt: skip


def _buffer_bytes(geometry: Geometry) -> int:
    hidden, inner = geometry.hidden_size or 0, geometry.intermediate_size or 0
    return UBATCH_TOKENS * 4 * max(geometry.vocab_size or 0, hidden + 2 * inner) + BUFFER_BYTES


def _cache_bytes(geometry: Geometry, context: int) -> int:
    """What one conversation of `context` tokens takes on all GPUs together."""
    layout = layout_of(geometry, 1)
    return layout.page_bytes * layout.pages(Request(context, UBATCH_TOKENS, 1)) if layout else 0


def _longest(geometry: Geometry, room_bytes: int) -> int:
    """Tokens a conversation that this much holds."""
    low, high = 0, geometry.max_context or 2**20
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _cache_bytes(geometry, middle) <= room_bytes else (low, middle - 1)
    return low


def _nearest(geometry: Geometry, place: Sequence[GpuRoom] | HostRoom, result: FitResult) -> Iterator[Nearest]:
    """Single changes with which it fits, the least first."""
    wish, count = result.wish, len(_rooms(place))
    changes = []
    shorter = (result.largest_context or 0) // 256 * 256
    if 0 < shorter < (result.context or 0):
        changes.append((f"--context {shorter}", replace(wish, context=shorter)))
    fewer = result.largest_concurrency or 0
    if 0 < fewer < wish.concurrency:
        changes.append((f"--concurrency {fewer}", replace(wish, concurrency=fewer)))
    for text, changed in changes:
        if _judge(geometry, place, changed).fits:
            yield Nearest(text, changed, count)
    if isinstance(place, HostRoom) or not place:
        return
    for more in (2, 4, 8):
        if more > count and _judge(geometry, [place[0]] * more, wish).fits:
            yield Nearest(f'--gpus "{more}x{place[0].name}"', wish, more)
            return
