"""Geometry from config.json files of real models."""

from __future__ import annotations

import json

import pytest

from podlab.catalog.config_reader import geometry_of_config
from tests.catalog.fit_runs import DATA, config

# Weights as their authors count them, in billions: model cards and technical reports.
PARAMETERS = {
    "meta-llama--Meta-Llama-3.1-8B": 8.03,
    "meta-llama--Meta-Llama-3.1-70B": 70.6,
    "Qwen--Qwen3-0.6B": 0.6,
    "Qwen--Qwen3-8B": 8.2,
    "Qwen--Qwen3-32B": 32.8,
    "Qwen--Qwen3-30B-A3B": 30.5,
    "Qwen--Qwen3-235B-A22B-FP8": 235,
    "Qwen--Qwen3-Coder-480B-A35B-Instruct": 480,
    "Qwen--Qwen2.5-14B": 14.7,
    "openai--gpt-oss-20b": 20.9,
    "openai--gpt-oss-120b": 116.8,
    "deepseek-ai--DeepSeek-V3": 671,
    "moonshotai--Kimi-K2-Instruct": 1026,
    "mistralai--Mixtral-8x7B-v0.1": 46.7,
    "nvidia--Nemotron-H-56B-Base-8K": 56,
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.6,
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": 109,
    "google--gemma-4-26B-A4B": 25.8,
    "Qwen--Qwen3.5-27B": 27.4,
    "Qwen--Qwen3.5-35B-A3B": 35,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_weights_are_counted_as_their_authors_count_them(name: str) -> None:
    found = geometry_of_config(config(name)).parameters

    assert found is not None
    assert found / 1e9 == pytest.approx(PARAMETERS[name], rel=0.03)


@pytest.mark.parametrize("path", sorted((DATA / "model_configs").glob("*.json")), ids=lambda path: path.stem)
def test_every_config_is_read_or_said_not_to_be_known(path: object) -> None:
    name = path.stem  # type: ignore[attr-defined]
    found = geometry_of_config(config(name))

    assert found.hidden_size
    assert found.attention_heads
    assert (found.layers is None) == (name == "XiaomiMiMo--MiMo-V2-Flash")  # windows with heads of their own


def test_a_dense_model_of_one_kind_of_layer() -> None:
    found = geometry_of_config(config("meta-llama--Meta-Llama-3.1-8B"))

    assert (found.layers, found.kv_heads, found.head_dim, found.max_context) == (32, 8, 128, 131072)
    assert (found.window_layers, found.stateless_layers, found.latent_dim, found.experts) == (0, 0, None, None)


def test_latent_attention() -> None:
    found = geometry_of_config(config("deepseek-ai--DeepSeek-V3"), weight_bytes=688_000_000_000)

    assert found.latent_dim == 512 + 64
    assert found.quantization == "fp8"
    assert found.quantization_block == 128
    assert found.active_parameters is not None
    assert found.active_parameters / 1e9 == pytest.approx(37, rel=0.03)
    assert found.expert_bytes / 688e9 == pytest.approx(0.97, abs=0.02)
    assert found.max_context == 163840


def test_an_indexer_of_sparse_attention_keeps_its_own_key() -> None:
    assert geometry_of_config(config("zai-org--GLM-5")).latent_dim == 512 + 64 + 66


def test_alternating_windows_and_experts_in_mxfp4() -> None:
    found = geometry_of_config(config("openai--gpt-oss-120b"), weight_bytes=65_248_815_744)

    assert (found.window, found.window_layers, found.layers) == (128, 18, 36)
    assert (found.quantization, found.experts, found.expert_width) == ("mxfp4", 128, 2880)
    assert found.expert_bytes / 2**30 == pytest.approx(56.7, abs=0.1)


def test_interleaved_windows_with_other_heads_than_the_rest() -> None:
    found = geometry_of_config(config("google--gemma-4-26B-A4B"))

    assert (found.window, found.window_layers, found.kv_heads, found.head_dim) == (1024, 25, 8, 256)
    assert (found.global_kv_heads, found.global_head_dim) == (2, 512)


@pytest.mark.parametrize(
    "document, windowed",
    [
        ({"model_type": "gemma2", "sliding_window": 4096}, 13),
        ({"model_type": "gemma3_text", "sliding_window": 512, "sliding_window_pattern": 6}, 22),
        ({"model_type": "mistral", "sliding_window": 4096}, 26),
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, 0),
        ({"model_type": "phi3", "sliding_window": 262144}, 0),
    ],
    ids=["gemma2", "gemma3", "mistral", "mistral without", "qwen2", "phi3, wider than its context"],
)
def test_windows_that_no_list_of_layers_tells(document: dict[str, object], windowed: int) -> None:
    shape = {"num_hidden_layers": 26, "hidden_size": 2304, "num_attention_heads": 8, "max_position_embeddings": 131072}

    assert geometry_of_config(shape | document).window_layers == windowed


def test_linear_attention_keeps_a_state_of_the_size_vllm_gives_it() -> None:
    found = geometry_of_config(config("Qwen--Qwen3.5-27B"))

    assert (found.layers, found.stateless_layers) == (64, 48)
    # Three columns of a convolution 10240 wide in bfloat16, and 48 states of 128 x 128 in float32.
    assert found.state_bytes_per_sequence == 48 * (3 * 10240 * 2 + 48 * 128 * 128 * 4)


def test_a_hybrid_of_mamba_attention_and_bare_feed_forward_layers() -> None:
    found = geometry_of_config(config("nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"))

    assert (found.layers, found.stateless_layers, found.cacheless_layers) == (52, 23, 23)
    assert found.state_bytes_per_sequence == 23 * (3 * (4096 + 2 * 8 * 128) * 2 + 4096 * 128 * 4)


def test_the_language_part_of_a_model_of_several() -> None:
    found = geometry_of_config(config("Qwen--Qwen3-VL-8B-Instruct"))

    assert (found.layers, found.hidden_size, found.max_context) == (36, 4096, 262144)


def test_granite_and_glm_name_their_fields_their_own_way() -> None:
    granite = geometry_of_config({
        "model_type": "granitemoehybrid", "num_hidden_layers": 4, "hidden_size": 1536, "num_attention_heads": 12,
        "num_key_value_heads": 4, "layer_types": ["mamba", "mamba", "mamba", "attention"], "mamba_n_heads": 48,
        "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4, "intermediate_size": 512,
        "num_local_experts": 64, "num_experts_per_tok": 6, "shared_intermediate_size": 1024, "vocab_size": 100352,
    })  # fmt: skip
    glm = geometry_of_config({
        "model_type": "glm4_moe", "num_hidden_layers": 46, "hidden_size": 4096, "num_attention_heads": 96,
        "num_key_value_heads": 8, "head_dim": 128, "n_routed_experts": 128, "n_shared_experts": 1,
        "num_experts_per_tok": 8, "moe_intermediate_size": 1408, "intermediate_size": 10944, "vocab_size": 151552,
        "first_k_dense_replace": 1, "num_nextn_predict_layers": 1, "max_position_embeddings": 131072,
    })  # fmt: skip

    assert (granite.stateless_layers, granite.experts) == (3, 64)
    assert granite.state_bytes_per_sequence == 3 * (3 * (3072 + 256) * 2 + 3072 * 128 * 2)
    assert glm.parameters is not None
    assert glm.parameters / 1e9 == pytest.approx(106, rel=0.02)  # GLM-4.5-Air


def test_a_predictor_of_further_tokens_is_not_counted() -> None:
    plain = geometry_of_config(config("deepseek-ai--DeepSeek-V3"), weight_bytes=688_000_000_000)
    with_it = geometry_of_config(
        config("deepseek-ai--DeepSeek-V3"), weight_bytes=688_000_000_000, tensors=["model.layers.61.eh_proj.weight"]
    )

    assert plain.weight_bytes == 688_000_000_000
    assert with_it.weight_bytes is not None
    assert with_it.weight_bytes / 688e9 == pytest.approx(671 / 685, rel=0.005)


def test_float32_is_loaded_in_half_precision() -> None:
    shape = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "torch_dtype": "float32"}
    found = geometry_of_config(shape, weight_bytes=1000)

    assert (found.weight_bytes, found.dtype_bytes) == (500, 2.0)


def test_yarn_stretches_the_context() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    shape = {"max_position_embeddings": 40960, "rope_scaling": scaling}

    assert geometry_of_config(shape).max_context == 131072


def test_a_kind_of_layer_nobody_has_heard_of_leaves_the_layers_unknown() -> None:
    shape = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "layer_types": ["warp", "warp"]}

    assert geometry_of_config(shape).layers is None


@pytest.mark.parametrize("text", ["{}", '{"num_hidden_layers": "many", "hidden_size": -3, "layer_types": 7}',
                                  '{"text_config": {}, "rope_scaling": [], "quantization_config": 3}'])  # fmt: skip
def test_nonsense_is_read_as_nothing_known(text: str) -> None:
    assert geometry_of_config(json.loads(text)).layers is None
