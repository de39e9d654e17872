"""A model server's Prometheus page as a ServerMetrics.

The page is untrusted: it is read up to a size, a line that is no sample is skipped, and a figure that cannot be (not
finite, negative) is left out. Names: vLLM's docs/usage/metrics, llama.cpp's tools/server/README.md, SGLang's
references/production_metrics and TGI's reference/metrics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from podlab.engines.base import ServerMetrics

PAGE_LIMIT_CHARACTERS = 4 * 2**20
LINE_LIMIT_CHARACTERS = 4096
COUNT_LIMIT = 2**63
_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{[^\n]*\})?[ \t]+([^\s{}]+)(?:[ \t]+-?[0-9]+)?[ \t]*")


@dataclass(frozen=True)
class Names:
    """What an engine calls each figure; the first name that the page has counts."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]
    kv_used_ratio: tuple[str, ...]
    prompt_tokens: tuple[str, ...]
    generation_tokens: tuple[str, ...]


VLLM = Names(
    ("vllm:num_requests_running",), ("vllm:num_requests_waiting",),
    ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),  # renamed when V1 came; a ratio in spite of its name
    ("vllm:prompt_tokens_total",), ("vllm:generation_tokens_total",),
)  # fmt: skip
LLAMACPP = Names(
    ("llamacpp:requests_processing",), ("llamacpp:requests_deferred",), ("llamacpp:kv_cache_usage_ratio",),
    ("llamacpp:prompt_tokens_total",), ("llamacpp:tokens_predicted_total",),
)  # fmt: skip
SGLANG = Names(
    ("sglang:num_running_reqs",), ("sglang:num_queue_reqs",), ("sglang:token_usage",),
    ("sglang:prompt_tokens_total",), ("sglang:generation_tokens_total",),
)  # fmt: skip
TGI = Names(
    ("tgi_batch_current_size",), ("tgi_queue_size",), (),
    ("tgi_request_input_length_sum",), ("tgi_request_generated_tokens_sum",),
)  # fmt: skip


def read(text: str, names: Names) -> ServerMetrics:
    """The figures of one page. Engines behind one server are added up; of their KV caches the fullest counts."""
    wanted = {name for group in (names.running, names.waiting, names.kv_used_ratio, names.prompt_tokens,
                                 names.generation_tokens) for name in group}  # fmt: skip
    found: dict[str, list[float]] = {}
    for name, value in _samples(text):
        if name in wanted:
            found.setdefault(name, []).append(value)
    ratios = _first(found, names.kv_used_ratio)
    ratio = max(ratios) if ratios else None
    return ServerMetrics(
        _count(found, names.running), _count(found, names.waiting),
        ratio if ratio is None or ratio <= 1.0 else None,
        _count(found, names.prompt_tokens), _count(found, names.generation_tokens),
    )  # fmt: skip


def rate_per_s(before: int | None, after: int | None, seconds: float) -> float | None:
    """How fast a counter grew; None when it cannot be known, as after a restart of the server."""
    if before is None or after is None or seconds <= 0 or after < before:
        return None
    return (after - before) / seconds


def _samples(text: str) -> Iterator[tuple[str, float]]:
    for line in text[:PAGE_LIMIT_CHARACTERS].splitlines():
        if len(line) > LINE_LIMIT_CHARACTERS or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value) and 0 <= value < COUNT_LIMIT:
            yield match[1], value


def _first(found: dict[str, list[float]], names: tuple[str, ...]) -> list[float]:
    return next((found[name] for name in names if name in found), [])


def _count(found: dict[str, list[float]], names: tuple[str, ...]) -> int | None:
    values = _first(found, names)
    return round(sum(values)) if values else None
