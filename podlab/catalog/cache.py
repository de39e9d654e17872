"""How vLLM lays out keys, values and states, and so how many tokens a number of bytes holds.

As `vllm/v1/core/kv_cache_utils.py` of vLLM 0.32 does it: layers of one kind form groups of equal size, all groups draw
pages of one size from one pool, and a request takes from the pool what each of its groups needs. A group of layers
with a sliding window stops growing at the window; a group of state layers takes a page for each state.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from podlab.catalog.geometry import CacheDtype, Geometry

BLOCK_TOKENS = 16
# Below this ratio of their layers the smaller kind is padded to the larger, instead of splitting the larger.
_PADDING_RATIO = 1.5


@dataclass(frozen=True)
class Request:
    """The most that one request needs: tokens of `context`, of which `in_flight` may be under way ahead of a window,
    and `states` of each layer that keeps one (two where prefix caching keeps the one before)."""

    context: int
    in_flight: int
    states: int


@dataclass(frozen=True)
class Kind:
    """Groups of layers that keep the same. `tokens_a_page` is None for a state, which takes a page of its own."""

    groups: int
    tokens_a_page: int | None
    window: int | None = None

    def pages(self, request: Request) -> int:
        """Pages of the pool that a request may take."""
        if self.tokens_a_page is None:
            return self.groups * request.states
        if self.window is None:
            return self.groups * ceil(request.context / self.tokens_a_page)
        kept = min(self.window - 1 + request.in_flight, request.context)
        # One more, as a window need not begin at the beginning of a page.
        return self.groups * (ceil(kept / self.tokens_a_page) + 1)


@dataclass(frozen=True)
class CacheLayout:
    """What a page of the pool costs each GPU (all layers of a group together), and who takes pages."""

    page_bytes: int
    kinds: tuple[Kind, ...]

    def pages(self, request: Request) -> int:
        """Pages that a request may take."""
        return sum(kind.pages(request) for kind in self.kinds)

    def bytes_per_token(self) -> float:
        """What one more token of a long context costs a GPU; nothing where no layer keeps all of it."""
        growing = [kind for kind in self.kinds if kind.tokens_a_page is not None and kind.window is None]
        return sum(self.page_bytes * kind.groups / kind.tokens_a_page for kind in growing if kind.tokens_a_page)


def layout_of(geometry: Geometry, tensor_parallel: int, dtype: CacheDtype = "auto") -> CacheLayout | None:
    """The layout on each GPU of a tensor-parallel group; None where the geometry does not say enough."""
    if geometry.layers is None:
        return None
    full = geometry.layers - geometry.window_layers - geometry.stateless_layers - geometry.cacheless_layers
    whole = _bytes_a_token(geometry, tensor_parallel, dtype, whole=True) if full else 0
    windowed = _bytes_a_token(geometry, tensor_parallel, dtype, whole=False) if geometry.window_layers else 0
    if whole is None or windowed is None or (geometry.window_layers and geometry.window is None):
        return None
    page = _page_bytes(geometry, tensor_parallel, [cost for cost in (whole, windowed) if cost])
    counts = [count for count in (full, geometry.window_layers, geometry.stateless_layers) if count]
    if not counts or not page:
        return None
    size = max(counts) if max(counts) < min(counts) * _PADDING_RATIO else min(counts)
    kinds = (
        *((Kind(ceil(full / size), page // whole),) if whole else ()),
        *((Kind(ceil(geometry.window_layers / size), page // windowed, geometry.window),) if windowed else ()),
        *((Kind(ceil(geometry.stateless_layers / size), None),) if geometry.stateless_layers else ()),
    )
    return CacheLayout(page * size, kinds)


def _page_bytes(geometry: Geometry, tensor_parallel: int, costs: list[int]) -> int:
    """Bytes of one page of one layer: a block of the costliest layers, or as many blocks as hold a state."""
    page = BLOCK_TOKENS * max(costs, default=0)
    if not geometry.stateless_layers:
        return page
    state = ceil(geometry.state_bytes_per_sequence / geometry.stateless_layers / tensor_parallel)
    return max(page, ceil(state / page) * page) if page else state


def _bytes_a_token(geometry: Geometry, tensor_parallel: int, dtype: CacheDtype, *, whole: bool) -> int | None:
    """Bytes of one token in one layer on one GPU; `whole`: in a layer that attends to everything."""
    value_bytes = 1.0 if dtype == "fp8" else geometry.dtype_bytes
    if geometry.latent_dim is not None:  # one vector for all heads, so every GPU keeps it
        return ceil(geometry.latent_dim * value_bytes)
    heads, width = geometry.kv_heads, geometry.head_dim
    if whole:
        heads, width = geometry.global_kv_heads or heads, geometry.global_head_dim or width
    if heads is None or width is None:
        return None
    return ceil(2 * max(1, heads // tensor_parallel) * width * value_bytes)
