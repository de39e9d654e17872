"""A model's geometry from its config.json, as Hugging Face repositories hold it. Pure.

Names of fields are those of the `transformers` configuration classes; where families differ, each name that is known
for a thing is tried. What the file does not say stays None; a kind of layer that is not known leaves `layers` None, so
that the arithmetic says that it cannot tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from podlab.catalog.geometry import Geometry
from podlab.catalog.shapes import Shape, expert_parameters, parameters, prediction_parameters, replicated_parameters

_DTYPE_BYTES = {"float32": 4.0, "float": 4.0, "float64": 8.0, "bfloat16": 2.0, "float16": 2.0, "half": 2.0}
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")
_MXFP4_BYTES = 4.25 / 8
"""Four bits, and a scale of eight bits for 32 of them."""
_INDEXER_SCALE = 4
"""Bytes of the scale beside an indexer's key, which vLLM keeps in fp8."""

_WINDOW_KINDS = {"sliding_attention", "chunked_attention", "local_attention", "swa"}
_FULL_KINDS = {"full_attention", "attention", "global_attention", "deepseek_sparse_attention"}
_STATE_KINDS = {"linear_attention", "mamba", "conv", "gdn", "kda"}
_PLAIN_KINDS = {"mlp", "moe"}
_UNKNOWN = ("swa_num_key_value_heads", "block_configs", "compress_ratios", "sparse_attention_config")
_UNKNOWN_MODELS = ("falcon_h1", "minimax", "minimax_text_01", "deepseek_v4")


def geometry_of_config(
    document: Mapping[str, Any],
    *,
    weight_bytes: int | None = None,
    parameter_count: int | None = None,
    tensors: Collection[str] = (),
    source: str = "",
) -> Geometry:
    """What a config.json says. `weight_bytes` and `tensors` come from the weights' index, `parameter_count` from the
    hub, where they are known; a multi-token predictor among the tensors is not counted, as vLLM does not load it."""
    config = _text_of(document)
    shape = _shape(config, document)
    layers = _Layers.read(config, shape)
    found = parameter_count or (None if "block_configs" in config else parameters(shape))
    loaded = _loaded_bytes(document, config, shape, weight_bytes, tensors)
    quantization = _quantization(document)
    experts = expert_parameters(shape)
    dtype_bytes = min(2.0, _dtype_bytes(document, config) or 2.0)
    expert_bytes = 0
    if experts and quantization == "mxfp4":
        expert_bytes = round(experts * _MXFP4_BYTES)
    elif experts and loaded and (counted := parameters(shape)):
        expert_bytes = round(loaded * min(1.0, experts / counted))
    replicated = replicated_parameters(shape)
    each = loaded / found if loaded and found and quantization != "mxfp4" else dtype_bytes
    return Geometry(
        parameters=found,
        active_parameters=_active(shape, experts, found),
        weight_bytes=loaded,
        dtype_bytes=dtype_bytes,
        quantization=quantization,
        layers=shape.layers if layers.known else None,
        hidden_size=shape.hidden,
        vocab_size=shape.vocab,
        attention_heads=shape.heads,
        kv_heads=layers.kv_heads,
        head_dim=layers.head_dim,
        latent_dim=_latent(config, shape),
        intermediate_size=_widest(shape),
        window=layers.window,
        window_layers=layers.windowed,
        global_kv_heads=layers.global_kv_heads,
        global_head_dim=layers.global_head_dim,
        stateless_layers=layers.states,
        state_bytes_per_sequence=layers.states * _state_bytes(config, dtype_bytes),
        cacheless_layers=layers.plain,
        experts=shape.experts,
        expert_width=shape.expert_width,
        quantization_block=_block(document),
        expert_bytes=expert_bytes,
        replicated_bytes=round(replicated * each),
        max_context=_context(config),
        source=source,
    )


def _text_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about the language model, in a file about several."""
    for name in _TEXT:
        inner = document.get(name)
        if isinstance(inner, Mapping) and inner:
            return _text_of(inner)
    return document


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that is a whole number above 0."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _shape(config: Mapping[str, Any], document: Mapping[str, Any]) -> Shape:
    hidden = _number(config, "hidden_size", "n_embd", "d_model")
    heads = _number(config, "num_attention_heads", "n_head", "num_heads")
    width = _number(config, "head_dim", "kv_channels", "attention_head_dim")
    if width is None and hidden and heads:
        width = hidden // heads
    layers = _number(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers") or _listed(config)
    experts = _number(config, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    inner = _number(config, "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
    expert_width = _number(config, "moe_intermediate_size", "expert_dim") or inner if experts else None
    kinds = _kinds(config, layers)
    expert_layers = _expert_layers(config, layers, kinds) if experts else 0
    plain = sum(kinds[kind] for kind in _PLAIN_KINDS)
    return Shape(
        layers=layers,
        hidden=hidden,
        vocab=_number(config, "vocab_size", "padded_vocab_size"),
        tied=bool(config.get("tie_word_embeddings", document.get("tie_word_embeddings", False))),
        heads=heads,
        kv_heads=_number(config, "num_key_value_heads", "num_kv_heads", "multi_query_group_num") or heads,
        head_dim=width,
        q_rank=_number(config, "q_lora_rank"),
        kv_rank=_number(config, "kv_lora_rank"),
        rope_dim=_number(config, "qk_rope_head_dim") or 0,
        nope_dim=_number(config, "qk_nope_head_dim") or 0,
        value_dim=_number(config, "v_head_dim"),
        inner=_number(config, "intermediate_size_mlp", "dense_intermediate_size") or inner,
        gated=config.get("mlp_hidden_act") != "relu2",
        query_gate=bool(config.get("attn_output_gate", config.get("model_type") == "qwen3_next")),
        experts=experts,
        experts_per_token=_number(config, "num_experts_per_tok", "experts_per_token", "num_experts_per_token",
                                  "top_k_experts", "moe_topk", "moe_k"),
        expert_width=expert_width,
        expert_hidden=_number(config, "moe_latent_size", "routed_expert_hidden_size") or hidden,
        shared_width=_shared_width(config, inner, expert_width),
        expert_layers=expert_layers,
        dense_layers=kinds["mlp"] if plain else (layers or 0) - expert_layers,
        state_layers=sum(kinds[kind] for kind in _STATE_KINDS),
        plain_layers=plain,
        state_parameters=_state_parameters(config, hidden),
        predictors=_number(config, "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules") or 0,
    )  # fmt: skip


def _shared_width(config: Mapping[str, Any], inner: int | None, expert_width: int | None) -> int:
    """The inside of the experts that each token goes through, together."""
    stated = _number(config, "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
                     "shared_intermediate_size", "share_expert_dim")  # fmt: skip
    if stated is not None:
        return stated
    if str(config.get("model_type", "")).startswith("llama4") or config.get("enable_moe_block"):
        return inner or 0
    return (_number(config, "n_shared_experts", "num_shared_experts") or 0) * (expert_width or 0)


def _listed(config: Mapping[str, Any]) -> int | None:
    listed = config.get("layer_types") or config.get("layers_block_type")
    return len(listed) if isinstance(listed, list) else None


def _expert_layers(config: Mapping[str, Any], layers: int | None, kinds: Counter[str]) -> int:
    """Layers whose feed-forward part is experts."""
    if kinds["moe"]:
        return kinds["moe"]
    if layers is None:
        return 0
    if isinstance(frequency := config.get("moe_layer_freq"), list):
        return sum(1 for each in frequency if each)
    if step := _number(config, "interleave_moe_layer_step"):
        return layers // step
    dense = config.get("mlp_only_layers")
    count = layers - (len(dense) if isinstance(dense, list) else 0)
    count -= config.get("first_k_dense_replace") or 0
    return count // (_number(config, "decoder_sparse_step") or 1)


def _kinds(config: Mapping[str, Any], layers: int | None) -> Counter[str]:
    """Layers by their kind, where the file lists them."""
    if isinstance(pattern := config.get("hybrid_override_pattern"), str):
        names = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
        return Counter(names.get(letter, letter) for letter in pattern)
    listed = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(listed, list):
        return Counter(str(kind) for kind in listed)
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping) and layers and isinstance(whole := linear.get("full_attn_layers"), list):
        return Counter({"kda": layers - len(whole), "full_attention": len(whole)})
    if layers and "linear_num_value_heads" in config and (every := _number(config, "full_attention_interval")):
        return Counter({"linear_attention": layers - layers // every, "full_attention": layers // every})
    return Counter()


@dataclass(frozen=True)
class _Layers:
    """How many layers keep what. `known` is False where a kind is not one we know how to count."""

    known: bool
    windowed: int = 0
    window: int | None = None
    states: int = 0
    plain: int = 0
    kv_heads: int | None = None
    head_dim: int | None = None
    global_kv_heads: int | None = None
    global_head_dim: int | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any], shape: Shape) -> _Layers:
        kinds = _kinds(config, shape.layers)
        known = _WINDOW_KINDS | _FULL_KINDS | _STATE_KINDS | _PLAIN_KINDS
        counted = cls(
            shape.layers is not None and set(kinds) <= known and not _unknown(config, shape),
            states=shape.state_layers,
            plain=shape.plain_layers + (_number(config, "num_kv_shared_layers") or 0),
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            global_kv_heads=_number(config, "num_global_key_value_heads"),
            global_head_dim=_number(config, "global_head_dim"),
        )
        window = _number(config, "sliding_window", "attention_chunk_size", "window_size")
        windowed = _windowed(config, kinds, shape.layers or 0) if window else 0
        if windowed and window and window < (_context(config) or window + 1):
            counted = replace(counted, windowed=windowed, window=window)
        return counted


def _unknown(config: Mapping[str, Any], shape: Shape) -> bool:
    """Whether the file speaks of a cache that this reader cannot count: values of another width than keys outside
    latent attention, windows with heads of their own, layers that differ one by one, compressed keys, a state and
    attention in one layer."""
    own_width = shape.value_dim is not None and shape.kv_rank is None and shape.value_dim != shape.head_dim
    return own_width or any(name in config for name in _UNKNOWN) or config.get("model_type") in _UNKNOWN_MODELS


def _windowed(config: Mapping[str, Any], kinds: Counter[str], layers: int) -> int:
    """How many layers attend to a window only."""
    if kinds:
        return sum(kinds[kind] for kind in _WINDOW_KINDS)
    if config.get("use_sliding_window") is False:
        return 0
    model = str(config.get("model_type", ""))
    if model.startswith("gemma2"):
        return layers - layers // 2
    if model.startswith(("gemma3", "cohere2")):
        every = _number(config, "sliding_window_pattern", "_sliding_window_pattern") or (6 if "gemma" in model else 4)
        return layers - layers // every
    if model.startswith("llama4"):
        rotated = config.get("no_rope_layers")
        return sum(1 for each in rotated if each) if isinstance(rotated, list) and rotated else layers - layers // 4
    if model.startswith("qwen"):
        return max(0, layers - (config.get("max_window_layers") or 0)) if config.get("use_sliding_window") else 0
    return layers


def _latent(config: Mapping[str, Any], shape: Shape) -> int | None:
    """Values that latent attention keeps of a token: its vector, the rotated part, and an indexer's key in fp8."""
    if shape.kv_rank is None:
        return None
    indexer = _number(config, "index_head_dim")
    return shape.kv_rank + shape.rope_dim + ((indexer + _INDEXER_SCALE) // 2 if indexer else 0)


def _widest(shape: Shape) -> int | None:
    """The widest inside of a feed-forward part that a token goes through."""
    routed = (shape.expert_width or 0) * (shape.experts_per_token or 0) + shape.shared_width
    dense = shape.inner if shape.dense_layers else 0
    return max(routed, dense or 0) or None


def _state_bytes(config: Mapping[str, Any], dtype_bytes: float) -> int:
    """What one layer without keys keeps of a sequence: a few columns of its convolution, and its state. The shapes
    are those of vllm/model_executor/layers/mamba/mamba_utils.py."""
    wanted = config.get("mamba_ssm_dtype") or config.get("mamba_ssm_cache_dtype")
    state_bytes = _DTYPE_BYTES.get(str(wanted), dtype_bytes)
    linear = config.get("linear_attn_config")
    if isinstance(linear, Mapping):  # Kimi Delta Attention
        heads, width = _number(linear, "num_heads") or 0, _number(linear, "head_dim") or 0
        columns = (_number(linear, "short_conv_kernel_size") or 4) - 1
        return round(3 * heads * width * columns * dtype_bytes + heads * width * width * 4)
    if values := _number(config, "linear_num_value_heads"):  # gated delta net
        keys = (_number(config, "linear_num_key_heads") or 0) * (_number(config, "linear_key_head_dim") or 0)
        inside = values * (_number(config, "linear_value_head_dim") or 0)
        columns = (_number(config, "linear_conv_kernel_dim") or 4) - 1
        state = inside * (_number(config, "linear_key_head_dim") or 0)
        return round((2 * keys + inside) * columns * dtype_bytes + state * state_bytes)
    if length := _number(config, "conv_L_cache"):  # LFM2
        return round((_number(config, "conv_dim", "hidden_size") or 0) * (length - 1) * dtype_bytes)
    if mamba_heads := _number(config, "mamba_num_heads", "mamba_n_heads"):  # Mamba 2
        if str(config.get("model_type", "")) == "nemotron_h":
            state_bytes = 4.0  # what vLLM takes where the file does not say
        inside = mamba_heads * (_number(config, "mamba_head_dim", "mamba_d_head") or 0)
        size = _number(config, "ssm_state_size", "mamba_d_state") or 0
        groups = _number(config, "n_groups", "mamba_n_groups") or 1
        columns = (_number(config, "conv_kernel", "mamba_d_conv") or 4) - 1
        return round((inside + 2 * groups * size) * columns * dtype_bytes + inside * size * state_bytes)
    if mamba1 := _number(config, "mamba_d_state", "state_size"):  # Mamba 1
        inside = (_number(config, "mamba_expand", "expand") or 2) * (_number(config, "hidden_size") or 0)
        columns = (_number(config, "mamba_d_conv", "conv_kernel") or 4) - 1
        return round(inside * columns * dtype_bytes + inside * mamba1 * state_bytes)
    return 0


def _state_parameters(config: Mapping[str, Any], hidden: int | None) -> int:
    """Weights of one layer that keeps a state, without its feed-forward part."""
    hidden = hidden or 0
    if values := _number(config, "linear_num_value_heads"):
        keys = (_number(config, "linear_num_key_heads") or 0) * (_number(config, "linear_key_head_dim") or 0)
        inside = values * (_number(config, "linear_value_head_dim") or 0)
        return hidden * (2 * keys + 2 * inside + 2 * values) + inside * hidden
    if mamba_heads := _number(config, "mamba_num_heads", "mamba_n_heads"):
        inside = mamba_heads * (_number(config, "mamba_head_dim", "mamba_d_head") or 0)
        size = _number(config, "ssm_state_size", "mamba_d_state") or 0
        groups = _number(config, "n_groups", "mamba_n_groups") or 1
        return hidden * (2 * inside + 2 * groups * size + mamba_heads) + inside * hidden
    return 0


def _context(config: Mapping[str, Any]) -> int | None:
    """Tokens the model was made for; YaRN stretches what it was trained on."""
    stated = _number(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
    scaling = config.get("rope_scaling")
    if isinstance(scaling, Mapping) and str(scaling.get("rope_type", scaling.get("type"))) == "yarn":
        trained, factor = _number(scaling, "original_max_position_embeddings"), scaling.get("factor")
        if isinstance(factor, int | float) and factor > 1 and (trained or stated):
            return max(stated or 0, round((trained or stated or 0) * factor))
    return stated


def _dtype_bytes(document: Mapping[str, Any], config: Mapping[str, Any]) -> float | None:
    for place in (config, document):
        for name in ("torch_dtype", "dtype"):
            if (found := _DTYPE_BYTES.get(str(place.get(name)))) is not None:
                return found
    return None


def _quantization_config(document: Mapping[str, Any]) -> Mapping[str, Any]:
    for place in (document, _text_of(document)):
        for name in ("quantization_config", "compression_config"):
            if isinstance(found := place.get(name), Mapping):
                return found
    return {}


def _quantization(document: Mapping[str, Any]) -> str | None:
    method = _quantization_config(document).get("quant_method")
    return str(method) if method else None


def _block(document: Mapping[str, Any]) -> int | None:
    size = _quantization_config(document).get("weight_block_size")
    return size[0] if isinstance(size, list) and size and isinstance(size[0], int) and size[0] > 0 else None


def _loaded_bytes(
    document: Mapping[str, Any], config: Mapping[str, Any], shape: Shape, weight_bytes: int | None,
    tensors: Collection[str],
) -> int | None:  # fmt: skip
    """Of the files' bytes, those that vLLM loads: no predictor of further tokens, and float32 as half precision."""
    if weight_bytes is None:
        return None
    if not _quantization(document) and _dtype_bytes(document, config) == 4.0:
        weight_bytes //= 2
    extra = prediction_parameters(shape) if _has_predictor(tensors, shape.layers) else 0
    counted = parameters(shape)
    return round(weight_bytes * counted / (counted + extra)) if extra and counted else weight_bytes


def _has_predictor(tensors: Collection[str], layers: int | None) -> bool:
    last = f"model.layers.{layers}."
    return any(name.startswith((last, "mtp.", "model.mtp")) for name in tensors)


def _active(shape: Shape, experts: int, found: int | None) -> int | None:
    """Weights at work on one token."""
    if not shape.experts or not shape.experts_per_token:
        return found
    counted = parameters(shape)
    return counted - experts + experts * shape.experts_per_token // shape.experts if counted else None
