"""Qwen3: a causal decoder with shared keys, norms of queries and keys, and SwiGLU (Qwen team, 2025,
arXiv:2505.09388), as an embedding model (arXiv:2506.05176).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.configs import (
    Base,
    Eps,
    RopeParameters,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_remainder,
    refuse_unless,
    refuse_wrong_kinds,
)
from embedsvc.inference.models.weight_reader import Reader
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Inputs,
    Linear,
    Ops,
    columns,
    rope_table,
)

UNUSED = ("lm_head.",)
"""Tensors that checkpoints carry and the hidden states do not need."""


class Config(Sizes, frozen=True, kw_only=True):
    """What the pass reads of config.json."""

    num_key_value_heads: Size
    head_dim: Size
    rms_norm_eps: Eps
    hidden_act: Literal["silu"]
    rope_theta: Base
    rope_scaling: None = None
    rope_parameters: RopeParameters | None = None
    layer_types: tuple[Literal["full_attention"], ...] | None = None
    attention_bias: bool = False
    use_sliding_window: bool = False

    def __post_init__(self) -> None:
        refuse_unless(self, attention_bias=False, use_sliding_window=False)
        refuse_remainder(self, "num_attention_heads", "num_key_value_heads")
        refuse_odd_heads(self.head_dim)
        refuse_wrong_kinds(self.layer_types, self.num_hidden_layers)

    def made(self, longest: int) -> int:
        """Numbers of the rotary positions of so many tokens."""
        return longest * self.head_dim


@dataclass(frozen=True, slots=True)
class Layer:
    attention_norm: Array  # (D,)
    qkv: Linear  # D -> (heads + 2 kv_heads) * head_dim
    q_norm: Array  # (head_dim,)
    k_norm: Array  # (head_dim,)
    attention_out: Linear  # heads * head_dim -> D
    norm: Array  # (D,)
    gate_up: Linear  # D -> 2 intermediate
    down: Linear  # intermediate -> D


@dataclass(frozen=True, slots=True)
class Weights:
    words: Array  # (vocabulary, D)
    rope: Array
    attention: Attention
    layers: tuple[Layer, ...]
    norm: Array  # (D,)


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = Reader(ops, tensors)
    width, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads

    def layer(name: str) -> Layer:
        of = f"{name}.self_attn"
        qkv = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        gate_up = {f"{name}.mlp.{x}_proj": inner for x in ("gate", "up")}
        return Layer(
            attention_norm=read.array(f"{name}.input_layernorm.weight", width),
            qkv=read.joined({f"{of}.{x}_proj": n for x, n in qkv.items()}, width, bias=False),
            q_norm=read.array(f"{of}.q_norm.weight", size),
            k_norm=read.array(f"{of}.k_norm.weight", size),
            attention_out=read.linear(f"{of}.o_proj", heads * size, width, bias=False),
            norm=read.array(f"{name}.post_attention_layernorm.weight", width),
            gate_up=read.joined(gate_up, width, bias=False),
            down=read.linear(f"{name}.mlp.down_proj", inner, width, bias=False),
        )

    theta = config.rope_parameters.rope_theta if config.rope_parameters else config.rope_theta
    return Weights(
        words=read.array("embed_tokens.weight", config.vocab_size, width),
        rope=ops.float32(rope_table(size, theta, inputs.longest)),
        attention=Attention(heads, kv_heads, scale=size**-0.5, causal=True),
        layers=tuple(layer(f"layers.{i}") for i in range(config.num_hidden_layers)),
        norm=read.array("norm.weight", width),
    )


def forward(ops: Ops, weights: Weights, config: Config, batch: Batch) -> Array:
    """Hidden states (N, D) of the last layer, after its norm."""
    hidden = ops.embedding(weights.words, batch.ids)
    for layer in weights.layers:
        hidden = _layer(ops, weights, layer, config, hidden, batch)
    return ops.rows(partial(ops.rms_norm, weight=weights.norm, eps=config.rms_norm_eps), hidden)


def _layer(
    ops: Ops, weights: Weights, layer: Layer, config: Config, hidden: Array, batch: Batch
) -> Array:
    eps, inner, size = config.rms_norm_eps, config.intermediate_size, config.head_dim
    q_width, kv_width = config.num_attention_heads * size, config.num_key_value_heads * size

    def project(hidden: Array, positions: Array) -> tuple[Array, ...]:
        normed = ops.rms_norm(ops.copy(hidden), layer.attention_norm, eps)
        q, k, v = columns(ops.linear(normed, layer.qkv), q_width, kv_width, kv_width)
        q = ops.rope(ops.rms_norm(q, layer.q_norm, eps), weights.rope, positions)
        k = ops.rope(ops.rms_norm(k, layer.k_norm, eps), weights.rope, positions)
        return q, k, v

    def finish(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        normed = ops.rms_norm(ops.copy(hidden), layer.norm, eps)
        gate, up = columns(ops.linear(normed, layer.gate_up), inner, inner)
        return ops.add(ops.linear(ops.multiply(ops.silu(gate), up), layer.down), hidden)

    q, k, v = ops.rows(project, hidden, batch.positions)
    context = ops.attention(q, k, v, weights.attention, batch.layout)
    return ops.rows(finish, context, hidden)
