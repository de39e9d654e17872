"""llama-server's flags, and what each is called in xllamacpp.CommonParams.

Source of the flags: llama.cpp's tools/server/README.md; of the attributes: xllamacpp 2026.10.11549. What is not in this
table is refused before anything starts.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from podlab.engines.given import FILLED_IN
from podlab.errors import BadArgument

Kind = Literal["whole", "number", "text", "on", "off", "choice"]


@dataclass(frozen=True)
class Flag:
    """One flag. `on` and `off` take no value; `choices` maps what is written to what the attribute takes."""

    names: tuple[str, ...]
    attribute: str
    kind: Kind
    choices: Mapping[str, str | int] | None = None


def _flag(names: str, attribute: str, kind: Kind = "whole") -> Flag:
    return Flag(tuple(names.split()), attribute, kind)


def _choice(names: str, attribute: str, choices: Mapping[str, str | int]) -> Flag:
    return Flag(tuple(names.split()), attribute, "choice", choices)


_CACHE_TYPES = {name: f"GGML_TYPE_{name.upper()}"
                for name in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")}  # fmt: skip

FLAGS: tuple[Flag, ...] = (
    _flag("--ctx-size -c", "n_ctx"),
    _flag("--parallel -np", "n_parallel"),
    _flag("--n-gpu-layers --gpu-layers -ngl", "n_gpu_layers"),
    _flag("--threads -t", "cpuparams.n_threads"),
    _flag("--threads-batch -tb", "cpuparams_batch.n_threads"),
    _flag("--threads-http", "n_threads_http"),
    _flag("--batch-size -b", "n_batch"),
    _flag("--ubatch-size -ub", "n_ubatch"),
    _flag("--n-predict --predict -n", "n_predict"),
    _flag("--keep", "n_keep"),
    _flag("--ignore-eos", "sampling.ignore_eos", "on"),
    _choice("--flash-attn -fa", "flash_attn_type", {
        "on": "LLAMA_FLASH_ATTN_TYPE_ENABLED", "off": "LLAMA_FLASH_ATTN_TYPE_DISABLED",
        "auto": "LLAMA_FLASH_ATTN_TYPE_AUTO"}),
    _choice("--cache-type-k -ctk", "cache_type_k", _CACHE_TYPES),
    _choice("--cache-type-v -ctv", "cache_type_v", _CACHE_TYPES),
    _flag("--cache-ram -cram", "cache_ram_mib"),
    _flag("--cache-reuse", "n_cache_reuse"),
    _flag("--no-cache-prompt", "cache_prompt", "off"),
    _flag("--ctx-checkpoints", "n_ctx_checkpoints"),
    _flag("--context-shift", "ctx_shift", "on"),
    _flag("--kv-unified -kvu", "kv_unified", "on"),
    _flag("--no-kv-offload -nkvo", "no_kv_offload", "on"),
    _flag("--swa-full", "swa_full", "on"),
    _flag("--no-cont-batching -nocb", "cont_batching", "off"),
    _flag("--no-warmup", "warmup", "off"),
    _flag("--check-tensors", "check_tensors", "on"),
    _flag("--main-gpu -mg", "main_gpu"),
    _choice("--split-mode -sm", "split_mode", {
        "none": "LLAMA_SPLIT_MODE_NONE", "layer": "LLAMA_SPLIT_MODE_LAYER", "row": "LLAMA_SPLIT_MODE_ROW"}),
    _choice("--rope-scaling", "rope_scaling_type", {
        "none": "LLAMA_ROPE_SCALING_TYPE_NONE", "linear": "LLAMA_ROPE_SCALING_TYPE_LINEAR",
        "yarn": "LLAMA_ROPE_SCALING_TYPE_YARN"}),
    _flag("--rope-freq-base", "rope_freq_base", "number"),
    _flag("--rope-freq-scale", "rope_freq_scale", "number"),
    _flag("--yarn-orig-ctx", "yarn_orig_ctx"),
    _choice("--numa", "numa", {
        "distribute": "GGML_NUMA_STRATEGY_DISTRIBUTE", "isolate": "GGML_NUMA_STRATEGY_ISOLATE",
        "numactl": "GGML_NUMA_STRATEGY_NUMACTL"}),
    _flag("--embedding --embeddings", "embedding", "on"),
    _choice("--pooling", "pooling_type", {
        "none": "LLAMA_POOLING_TYPE_NONE", "mean": "LLAMA_POOLING_TYPE_MEAN", "cls": "LLAMA_POOLING_TYPE_CLS",
        "last": "LLAMA_POOLING_TYPE_LAST", "rank": "LLAMA_POOLING_TYPE_RANK"}),
    _flag("--chat-template", "chat_template", "text"),
    _flag("--jinja", "use_jinja", "on"),
    _flag("--no-jinja", "use_jinja", "off"),
    _choice("--reasoning-format", "reasoning_format", {
        "none": "COMMON_REASONING_FORMAT_NONE", "auto": "COMMON_REASONING_FORMAT_AUTO",
        "deepseek": "COMMON_REASONING_FORMAT_DEEPSEEK",
        "deepseek-legacy": "COMMON_REASONING_FORMAT_DEEPSEEK_LEGACY"}),
    _choice("--reasoning -rea", "enable_reasoning", {"on": 1, "off": 0, "auto": -1}),
    _flag("--seed -s", "sampling.seed"),
    _flag("--temp --temperature", "sampling.temp", "number"),
    _flag("--top-k", "sampling.top_k"),
    _flag("--top-p", "sampling.top_p", "number"),
    _flag("--min-p", "sampling.min_p", "number"),
    _flag("--repeat-penalty", "sampling.penalty_repeat", "number"),
    _flag("--repeat-last-n", "sampling.penalty_last_n"),
    _flag("--presence-penalty", "sampling.penalty_present", "number"),
    _flag("--frequency-penalty", "sampling.penalty_freq", "number"),
    _flag("--ignore-eos", "sampling.ignore_eos", "on"),
    _flag("--verbosity --log-verbosity -lv", "verbosity"),
)  # fmt: skip
_BY_NAME = {name: flag for flag in FLAGS for name in flag.names}
_OURS = {
    "--model": "the model is the command's own argument", "-m": "the model is the command's own argument",
    "--alias": "the name comes from the model", "-a": "the name comes from the model",
    "--host": "a server listens on 127.0.0.1 of the pod and is reached through the tunnel",
    "--port": "give the port as an option of the command",
    "--api-key": "podlab makes a key for each endpoint", "--api-key-file": "podlab makes a key for each endpoint",
    "--metrics": "metrics are always on", "--hf-repo": "write the model as hf:OWNER/REPO/FILE.gguf",
    "-hf": "write the model as hf:OWNER/REPO/FILE.gguf",
}  # fmt: skip


def assignments(extra: Sequence[str]) -> dict[str, object]:
    """llama-server flags as attribute -> value, the last one winning. Raises BadArgument with a did-you-mean."""
    return dict(_pairs(iter(extra)))


def as_arguments(values: Mapping[str, object]) -> Iterator[str]:
    """The `--set ATTRIBUTE=JSON` arguments of remote/llamacpp_server.py."""
    for attribute, value in values.items():
        yield "--set"
        yield f"{attribute}={json.dumps(value)}"


def _pairs(words: Iterator[str]) -> Iterator[tuple[str, object]]:
    for word in words:
        name, joined, value = word.partition("=")
        flag = _BY_NAME.get(name)
        if flag is None:
            raise _unknown(name)
        if flag.kind in ("on", "off"):
            if joined:
                raise BadArgument(f"{name} takes no value.", hint=f"Write {name} alone.")
            yield flag.attribute, flag.kind == "on"
            continue
        if not joined:
            try:
                value = next(words)
            except StopIteration:
                raise BadArgument(f"{name} has no value.", hint=f"Write {name} VALUE.") from None
        yield flag.attribute, _value(name, flag, value)


def _value(name: str, flag: Flag, text: str) -> object:
    if flag.choices is not None:
        if text not in flag.choices:
            raise BadArgument(f"{name} cannot be {text!r}.", hint=f"One of: {', '.join(flag.choices)}.")
        return flag.choices[text]
    try:
        if flag.kind == "whole" and abs(number := int(text)) < 2**31:
            return number
        if flag.kind == "number" and abs(fraction := float(text)) < 1e9:  # refuses inf and nan too
            return fraction
    except ValueError:
        pass
    if flag.kind != "text":
        raise BadArgument(f"{name} cannot be {text!r}.", hint=f"It has to be a {flag.kind} number."
                          if flag.kind == "whole" else "It has to be a number.")  # fmt: skip
    if any(token in text for token in FILLED_IN) or "\0" in text:
        raise BadArgument(
            f"{name} holds one of {', '.join(FILLED_IN)}, which the pod would fill in.", hint="Reword it."
        )
    return text


def _unknown(name: str) -> BadArgument:
    if name in _OURS:
        return BadArgument(f"{name} cannot be given here: {_OURS[name]}.", hint="Leave it out.")
    close = difflib.get_close_matches(name, [*_BY_NAME, *_OURS], n=1, cutoff=0.6)
    return BadArgument(
        f"llama.cpp has no option {name!r} that podlab knows.",
        hint=f"Did you mean {close[0]}?" if close else "Options look like --ctx-size 8192 or --temp 0.7.",
    )
