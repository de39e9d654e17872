"""What an engine's own arguments say of context, share of memory and cut, under the names that engine has for them.

The names are from the engines' documentation: `vllm serve`, "Server Arguments" of SGLang, "Text-generation-launcher
arguments" of TGI, and `trtllm-serve`, which has two names for its share (tensorrt_llm/commands/serve.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from podlab.catalog import arguments
from podlab.catalog.wishes import ServeWish
from podlab.errors import BadArgument
from podlab.units import parse_share, parse_tokens

TENSOR, DATA, PIPELINE = "--tensor-parallel-size", "--data-parallel-size", "--pipeline-parallel-size"
_SPELLINGS = {
    TENSOR: ("tensor-parallel-size", "tp-size", "tp", "num-shard"),
    DATA: ("data-parallel-size", "dp-size", "dp"),
    PIPELINE: ("pipeline-parallel-size", "pp-size", "pp"),
}
"""What multiplies GPUs, as vLLM and the other engines call it."""
_CONTEXT = {
    "vllm": ("max-model-len",), "sglang": ("context-length",), "tgi": ("max-total-tokens",), "trtllm": ("max-seq-len",),
}  # fmt: skip
_PROMPT = {"tgi": ("max-input-tokens", "max-input-length")}
"""Of the context, what a prompt may take: a server with as much as the context does not start."""
_MEMORY = {
    "vllm": ("gpu-memory-utilization",), "sglang": ("mem-fraction-static",), "tgi": ("cuda-memory-fraction",),
    "trtllm": ("kv-cache-free-gpu-memory-fraction", "free-gpu-memory-fraction"),
}  # fmt: skip
SHARE_OF_FREE = frozenset({"trtllm"})
"""Engines whose share is of what stays free beside the weights, for the cache alone; the others' is of all memory."""

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Said:
    """What a wish and the engine's own arguments in it say together; of one thing the engine's own argument counts."""

    tensor_parallel: int | None = None
    data_parallel: int | None = None
    pipeline_parallel: int | None = None
    expert_parallel: bool | None = None
    context: int | None = None
    prompt: int | None = None
    """Tokens of a prompt that have to be allowed beside at least one of an answer."""
    memory_ratio: float | None = None
    reasons: tuple[str, ...] = ()
    """Where the engine's own argument wins over the wish."""


def said(wish: ServeWish, engine: str) -> Said:
    """The wish and the engine's own arguments in it, read together."""
    context_names, memory_names = _CONTEXT.get(engine, ()), _MEMORY.get(engine, ())
    context = _value(parse_tokens, wish.extra, context_names) or wish.context
    memory_ratio = _value(parse_share, wish.extra, memory_names) or wish.memory_ratio
    prompt = _value(parse_tokens, wish.extra, _PROMPT.get(engine, ()))
    reasons = (
        *_outdone(wish, "--context", wish.context, context_names, context),
        *_outdone(wish, "--memory", wish.memory_ratio, memory_names, memory_ratio),
    )
    return Said(
        number(wish.extra, *_SPELLINGS[TENSOR]), number(wish.extra, *_SPELLINGS[DATA]),
        number(wish.extra, *_SPELLINGS[PIPELINE]), arguments.switched(wish.extra, "enable-expert-parallel"),
        context, prompt, memory_ratio, reasons,
    )  # fmt: skip


def check_prompt(own: Said, context: int | None, wish: ServeWish, engine: str) -> None:
    """Raise BadArgument where prompts would be as long as the whole context: the engine does not start so."""
    if own.prompt and context and own.prompt >= context and not wish.force:
        raise BadArgument(
            f"{_given(wish.extra, _PROMPT[engine])} leaves no token for an answer in a context of {context}.",
            hint=f"Lower it, or say a --context beyond {own.prompt}. {engine} does not start like this.",
        )


def number(args: Sequence[str], *names: str) -> int | None:
    """The number that a flag of one of these names sets."""
    text = next((value for name in names if (value := arguments.value_of(args, name))), "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:10]) < 2**31 else None


def _value(parse: Callable[[str], N], args: Sequence[str], names: Sequence[str]) -> N | None:
    """What the first of these flags that is given sets; None for what only the engine understands, which then stays its
    own."""
    try:
        return parse(next((value for name in names if (value := arguments.value_of(args, name))), ""))
    except BadArgument:
        return None


def _outdone(
    wish: ServeWish, option: str, asked: N | None, names: Sequence[str], meant: N | None
) -> Iterator[str]:  # fmt: skip
    """That an option of podlab's is of no effect, as the engine's own one of the same meaning says something else."""
    if asked is not None and asked != meant:
        yield f"{_given(wish.extra, names)} wins over {option} {asked}: the engine's own option counts."


def _given(args: Sequence[str], names: Sequence[str]) -> str:
    """The flag of one of these names with its value, spelled as the person did."""
    found = next(each for name in names for each in reversed(arguments.split(args)) if each.name == name)
    return f"{found.words[0].partition('=')[0]} {found.value or ''}".rstrip()
