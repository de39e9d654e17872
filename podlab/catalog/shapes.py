"""How many weights a transformer of a given shape has: what no index of files tells by parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model's matrices, as its config.json names them. Norms and biases are left out."""

    layers: int | None
    hidden: int | None
    vocab: int | None
    tied: bool
    """Whether the output layer is the embedding."""
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    q_rank: int | None
    kv_rank: int | None
    rope_dim: int
    nope_dim: int
    value_dim: int | None
    inner: int | None
    gated: bool
    """Whether a feed-forward part has three matrices instead of two."""
    experts: int | None
    experts_per_token: int | None
    expert_width: int | None
    expert_hidden: int | None
    shared_width: int
    """Of experts that each token goes through, together."""
    expert_layers: int
    dense_layers: int
    """With a feed-forward part that is no experts."""
    state_layers: int
    plain_layers: int
    """Feed-forward parts that are layers of their own."""
    state_parameters: int
    """Of one layer that keeps a state."""
    predictors: int
    """Layers that predict further tokens."""
    query_gate: bool
    """Whether the projection to queries is doubled by a gate."""


def parameters(shape: Shape) -> int | None:
    """Weights in all, without predictors; None where the shape does not say enough."""
    layers, hidden, vocab = shape.layers, shape.hidden, shape.vocab
    if layers is None or hidden is None or vocab is None or attention_parameters(shape) is None:
        return None
    attending = layers - shape.state_layers - shape.plain_layers
    return (
        vocab * hidden * (1 if shape.tied else 2)
        + attending * (attention_parameters(shape) or 0)
        + shape.state_layers * shape.state_parameters
        + shape.dense_layers * _matrices(shape) * hidden * (shape.inner or 0)
        + shape.expert_layers * _beside_experts(shape)
        + expert_parameters(shape)
    )


def attention_parameters(shape: Shape) -> int | None:
    """Weights of the attention of one layer."""
    hidden, heads, width = shape.hidden, shape.heads, shape.head_dim
    if hidden is None or heads is None or width is None:
        return None
    if shape.kv_rank is None:
        queries = heads * width * (2 if shape.query_gate else 1)
        return hidden * (queries + 2 * (shape.kv_heads or heads) * width) + heads * width * hidden
    query_width = heads * (shape.nope_dim + shape.rope_dim)
    value_width = heads * (shape.value_dim or width)
    query = (hidden + query_width) * shape.q_rank if shape.q_rank else hidden * query_width
    keys = shape.kv_rank * (heads * shape.nope_dim + value_width)
    return query + hidden * (shape.kv_rank + shape.rope_dim) + keys + value_width * hidden


def expert_parameters(shape: Shape) -> int:
    """Weights of all experts that tokens are routed to."""
    return shape.expert_layers * _routed(shape)


def prediction_parameters(shape: Shape) -> int:
    """Weights of the layers that predict further tokens: each a whole layer, and what joins two hidden vectors.

    DeepSeek's checkpoints hold the embedding and the output layer once more for it, and so do those that follow them.
    """
    hidden, vocab = shape.hidden or 0, shape.vocab or 0
    body = _routed(shape) + _beside_experts(shape) if shape.experts else _matrices(shape) * hidden * (shape.inner or 0)
    doubled = 2 * vocab * hidden if shape.kv_rank is not None else 0
    return shape.predictors * ((attention_parameters(shape) or 0) + body + 2 * hidden * hidden + doubled)


def replicated_parameters(shape: Shape) -> int:
    """Weights that each GPU of a tensor-parallel group holds whole."""
    hidden = shape.hidden or 0
    routers = shape.expert_layers * hidden * (shape.experts or 0)
    if shape.kv_rank is None:
        return routers
    low_rank = hidden * ((shape.q_rank or 0) + shape.kv_rank + shape.rope_dim)
    return routers + (shape.layers or 0) * low_rank


def _routed(shape: Shape) -> int:
    width = shape.expert_width or 0
    return (shape.experts or 0) * _matrices(shape) * (shape.expert_hidden or 0) * width


def _beside_experts(shape: Shape) -> int:
    hidden = shape.hidden or 0
    return _matrices(shape) * hidden * shape.shared_width + hidden * (shape.experts or 0)


def _matrices(shape: Shape) -> int:
    return 3 if shape.gated else 2
