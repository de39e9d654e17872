"""The kinds of models that can be made GGUF files: what their weights are called on both sides, what says their shape.

Each kind is llama.cpp's architecture of that name (src/models of llama.cpp reads the keys and weights named here; what
keys mean: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). What a configuration says that is not known here
is refused: a model that answers nonsense is worse than none. Python 3.8, gguf and numpy; lies beside convert.py.
"""

from __future__ import annotations

import json
import math
import re

import gguf  # type: ignore[import-not-found,unused-ignore]  # only where it runs
import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from podlab.remote.safetensors_files import Failure
else:
    from safetensors_files import Failure

ATTENTION = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GEMMA_3 = "gemma3"
FULL, SLIDING = "full_attention", "sliding_attention"
WHOLE = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}


class Kind:
    """An architecture of llama.cpp. `blocks` are names of a layer's weights on both sides, `biases` those of them that
    may have one. `turned`: its heads are rotated by neighbours there and by halves here. `one_more`: its norms are kept
    without the 1 that is added to them."""

    def __init__(
        self, name: str, blocks: dict[str, str], biases: tuple[str, ...] = (), turned: bool = False,
        one_more: bool = False, activation: str = "silu",
    ) -> None:  # fmt: skip
        self.name, self.blocks, self.biases, self.turned = name, blocks, biases, turned
        self.one_more, self.activation = one_more, activation

    def target(self, name: str) -> str:
        """llama.cpp's name of a weight. Raises Failure for one that such a model does not have."""
        match = re.match(r"(?:model\.)?(?:layers\.(\d+)\.(.+)|(\w+))\.(weight|bias)$", name)
        number, inner, outer, part = match.groups() if match else (None, "", "", "")
        if number is not None and inner in self.blocks and (part == "weight" or self.blocks[inner] in self.biases):
            return f"blk.{number}.{self.blocks[inner]}.{part}"
        if outer in WHOLE and part == "weight":
            return f"{WHOLE[outer]}.weight"
        raise Failure("unsupported_architecture", f"it has a weight {name[:80]!r}, which no {self.name} has")

    def ready(self, target: str, weight: Any, config: dict[str, Any]) -> Any:
        """A weight as llama.cpp wants it."""
        if self.one_more and target.endswith("norm.weight"):
            return weight + 1.0
        heads = int(config["num_attention_heads"])
        per_part = {"attn_q": heads, "attn_k": int(config.get("num_key_value_heads") or heads)}
        count = per_part.get(target.split(".")[-2]) if self.turned else None
        return weight if count is None else interleaved(weight, count)


QUERIES = ("attn_q", "attn_k", "attn_v")
HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
AROUND = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip
"""Gemma's norms after each part of a layer."""
LLAMA = Kind("llama", ATTENTION, (*QUERIES, "attn_output"), turned=True)
KINDS = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": Kind("qwen2", ATTENTION, QUERIES),
    "Qwen3ForCausalLM": Kind("qwen3", {**ATTENTION, **HEAD_NORMS}),
    "Gemma3ForCausalLM": Kind(
        GEMMA_3, {**ATTENTION, **HEAD_NORMS, **AROUND}, one_more=True, activation="gelu_pytorch_tanh"
    ),
}


def interleaved(weight: Any, heads: int) -> Any:
    """Hugging Face turns the halves of a head against each other, llama.cpp neighbours: the rows in that order."""
    rows = weight.shape[0]
    halves = weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def kind_of(config: dict[str, Any]) -> Kind:
    """What llama.cpp has to take it for. Raises Failure for what would come out wrong."""
    names = config.get("architectures") or ["none"]
    kind = KINDS.get(str(names[0]))
    if kind is None:
        raise Failure("unsupported_architecture", f"it is a {names[0]}, and this converter knows {', '.join(KINDS)}")
    windowed = "use_sliding_window" not in config or config["use_sliding_window"]  # else its length is of no effect
    acts = config.get("hidden_activation") or config.get("hidden_act") or kind.activation
    gemma = kind.name == GEMMA_3
    unknown = {
        "quantization_config": config.get("quantization_config"),
        "sliding_window": config.get("sliding_window") if windowed and not gemma else None,
        "mlp_bias": config.get("mlp_bias"),
        "activation": None if acts == kind.activation else acts,
        "partial_rotary_factor": None if config.get("partial_rotary_factor", 1) == 1 else "not 1",
        "layer_types": None if gemma else [each for each in config.get("layer_types") or () if each != FULL][:1],
        **(strange_of_gemma(config) if gemma else {}),
    }
    for key, value in unknown.items():
        if value:
            raise Failure("unsupported_architecture", f"its {key} is {json.dumps(value)[:120]}, which is not known")
    return kind


def strange_of_gemma(config: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp has fixed for Gemma 3, where a configuration says something else."""
    layers, head = int(config.get("num_hidden_layers") or 0), config.get("head_dim")
    usual = [FULL if number % 6 == 5 else SLIDING for number in range(layers)]
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    local = ((config.get("rope_parameters") or {}).get(SLIDING) or {}).get("rope_theta")
    return {
        "layer_types": None if config.get("layer_types", usual) == usual else config["layer_types"],
        "sliding_window_pattern": None if pattern == 6 else pattern,
        "rope_local_base_freq": None if (local or config.get("rope_local_base_freq") or 1e4) == 1e4 else "not 10000",
        "query_pre_attn_scalar": None if config.get("query_pre_attn_scalar") == head else "not its head_dim",
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "use_bidirectional_attention": config.get("use_bidirectional_attention"),
        "attention_bias": config.get("attention_bias"),
    }


def add_shape(writer: Any, kind: Kind, config: dict[str, Any]) -> None:
    """The keys that say how large it is."""
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        head = int(config.get("head_dim") or width // heads)
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_embedding_length(width)
        writer.add_block_count(int(config["num_hidden_layers"]))
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_head_count(heads)
        writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
        writer.add_vocab_size(int(config["vocab_size"]))
        if kind.name == GEMMA_3:
            writer.add_sliding_window(int(config["sliding_window"]))
        rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
        add_rope(writer, config, rope.get(FULL) or rope, head)
    except (KeyError, TypeError, ValueError) as error:
        raise Failure("bad_config", f"config.json does not say its shape: {error!r}")


def add_rope(writer: Any, config: dict[str, Any], rope: dict[str, Any], head: int) -> None:
    """How positions turn heads: by the base alone, by Llama 3's factors (a tensor), or by YaRN (keys)."""
    base = float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0)
    writer.add_rope_freq_base(base)
    how = rope.get("rope_type") or rope.get("type") or "default"
    known = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
    if how == "llama3":
        known |= {"low_freq_factor", "high_freq_factor"}
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, base, head))
    elif how == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        trained = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(int(trained))
    elif how != "default":
        raise Failure("unsupported_architecture", f"its positions are turned by {json.dumps(how)}, which is not known")
    strange = sorted(key for key, value in rope.items() if key not in known and value is not None)
    if how != "default" and strange:
        raise Failure("unsupported_architecture", f"its {how} says {strange[0][:40]!r}, which is not known")


def llama3_factors(rope: dict[str, Any], base: float, head: int) -> Any:
    """By what each frequency is divided: slow ones by the whole factor, fast ones not at all, between them smoothly.

    As transformers' modeling_rope_utils.py reckons it; llama.cpp takes the divisors.
    """
    factor, trained = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    divisors = []
    for number in range(0, head, 2):
        turns = trained / (2 * math.pi * base ** (number / head))  # of this frequency within what it was trained with
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1 / ((1 - share) / factor + share))
    return np.array(divisors, dtype=np.float32)
