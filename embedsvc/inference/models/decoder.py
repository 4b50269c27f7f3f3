"""What decoders share: rotary positions, RMS norms, a gated MLP, and keys and values that serve
several heads of queries (Ainslie et al., 2023, arXiv:2305.13245).

The file of an architecture has its `Config`, and says in `Switches` how it differs from the others.
Llama and Mistral would add a switch for layers without norms of queries and keys, Qwen2 also one
for biases (`attention_bias`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.configs import (
    Eps,
    LayerType,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_remainder,
    refuse_unless,
    refuse_wrong_kinds,
)
from embedsvc.inference.models.last_layer import read_rows, with_reads
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Inputs,
    Linear,
    Ops,
    Read,
    columns,
    rope_table,
)

UNUSED = ("lm_head.",)
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""


class Config(Sizes, frozen=True, kw_only=True):
    """What decoders spell alike in config.json."""

    num_key_value_heads: Size
    head_dim: Size
    rms_norm_eps: Eps
    layer_types: tuple[LayerType, ...] | None = None
    rope_scaling: None = None
    attention_bias: bool = False

    def __post_init__(self) -> None:
        refuse_unless(self, attention_bias=False)
        refuse_remainder(self, "num_attention_heads", "num_key_value_heads")
        refuse_odd_heads(self.head_dim)
        refuse_wrong_kinds(self.layer_types, self.num_hidden_layers)

    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer."""
        return self.layer_types or ("full_attention",) * self.num_hidden_layers

    def table_numbers(self, longest: int) -> int:
        """Numbers in the tables of rotary positions, one table for each kind of layer."""
        return longest * self.head_dim * len(set(self.kinds()))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How the layers of one kind see a text."""

    rope_theta: float
    scale: float
    """What products of queries and keys are multiplied by."""
    causal: bool
    window: int | None = None
    """See `Attention.window`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """How a decoder differs from the others."""

    views: Mapping[LayerType, View]
    hidden_act: Literal["silu", "gelu_pytorch_tanh"]
    """The activation of the gate."""
    norms_after_blocks: bool = False
    """Whether what attention and MLP give is normed before it is added to the hidden states."""
    norms_add_one: bool = False
    """Whether the weights of norms are stored less 1."""
    scale_embeddings: bool = False
    """Whether word embeddings are multiplied by the square root of their width."""


@dataclass(frozen=True, slots=True)
class Layer:
    rope: Array  # (longest, head_dim)
    attention: Attention
    attention_norm: Array  # (D,)
    qkv: Linear  # D -> (heads + 2 kv_heads) * head_dim
    q_norm: Array  # (head_dim,)
    k_norm: Array  # (head_dim,)
    attention_out: Linear  # heads * head_dim -> D
    attention_out_norm: Array | None  # (D,)
    mlp_norm: Array  # (D,)
    gate_up: Linear  # D -> 2 intermediate
    down: Linear  # intermediate -> D
    mlp_out_norm: Array | None  # (D,)


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    layers: tuple[Layer, ...]
    final_norm: Array  # (D,)
    activation: Callable[[Ops, Array], Array]


ACTIVATIONS: dict[str, Callable[[Ops, Array], Array]] = {
    "silu": lambda ops, x: ops.silu(x),
    "gelu_pytorch_tanh": lambda ops, x: ops.gelu_tanh(x),
}


def prepare(
    ops: Ops, tensors: Tensors, config: Config, inputs: Inputs, switches: Switches
) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner, size = config.hidden_size, config.intermediate_size, config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    after = switches.norms_after_blocks

    def see(view: View) -> tuple[Array, Attention]:
        rope = ops.float32(rope_table(size, view.rope_theta, inputs.longest))
        return rope, Attention(heads, kv_heads, view.scale, view.causal, view.window)

    def norm(name: str, width: int) -> Array:
        weight = tensors.take(f"{name}.weight", width)
        return ops.array(1 + weight if switches.norms_add_one else weight)

    def layer(name: str, rope: Array, attention: Attention) -> Layer:
        block = f"{name}.self_attn"
        qkv = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        gate_up = {f"{name}.mlp.{x}_proj": inner for x in ("gate", "up")}
        # `post_attention_layernorm` is before the MLP where no block has a norm after it.
        before_mlp = "pre_feedforward_layernorm" if after else "post_attention_layernorm"
        return Layer(
            rope=rope,
            attention=attention,
            attention_norm=norm(f"{name}.input_layernorm", width),
            qkv=read.joined({f"{block}.{x}_proj": n for x, n in qkv.items()}, width, bias=False),
            q_norm=norm(f"{block}.q_norm", size),
            k_norm=norm(f"{block}.k_norm", size),
            attention_out=read.linear(f"{block}.o_proj", heads * size, width, bias=False),
            attention_out_norm=norm(f"{name}.post_attention_layernorm", width) if after else None,
            mlp_norm=norm(f"{name}.{before_mlp}", width),
            gate_up=read.joined(gate_up, width, bias=False),
            down=read.linear(f"{name}.mlp.down_proj", inner, width, bias=False),
            mlp_out_norm=norm(f"{name}.post_feedforward_layernorm", width) if after else None,
        )

    kinds = config.kinds()
    views = {kind: see(switches.views[kind]) for kind in set(kinds)}
    words = tensors.take_weight("embed_tokens.weight", config.vocab_size, width)
    return Weights(
        config=config,
        word_embeddings=ops.table(
            words * np.float32(width**0.5) if switches.scale_embeddings else words
        ),
        layers=tuple(layer(f"layers.{i}", *views[kind]) for i, kind in enumerate(kinds)),
        final_norm=norm("norm", width),
        activation=ACTIVATIONS[switches.hidden_act],
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer after its norm, of the rows that are read (N or B, D)."""
    hidden = ops.embedding(weights.word_embeddings, batch.ids)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights, layer, hidden, batch, read)
    eps = weights.config.rms_norm_eps
    return ops.rows(partial(ops.rms_norm, weight=weights.final_norm, eps=eps), hidden)


def _layer(
    ops: Ops, weights: Weights, layer: Layer, hidden: Array, batch: Batch, read: Read
) -> Array:
    config = weights.config
    eps, inner, size = config.rms_norm_eps, config.intermediate_size, config.head_dim
    q_width, kv_width = config.num_attention_heads * size, config.num_key_value_heads * size

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        normed = ops.rms_norm(ops.copy(hidden), layer.attention_norm, eps)
        q, k, v = columns(ops.linear(normed, layer.qkv), q_width, kv_width, kv_width)
        q = ops.rope(ops.rms_norm(q, layer.q_norm, eps), layer.rope, positions)
        k = ops.rope(ops.rms_norm(k, layer.k_norm, eps), layer.rope, positions)
        return q, k, v

    def after_attention(context: Array, hidden: Array) -> Array:
        attended = ops.linear(context, layer.attention_out)
        if layer.attention_out_norm is not None:
            attended = ops.rms_norm(attended, layer.attention_out_norm, eps)
        hidden = ops.add(attended, hidden)
        normed = ops.rms_norm(ops.copy(hidden), layer.mlp_norm, eps)
        gate, up = columns(ops.linear(normed, layer.gate_up), inner, inner)
        mlp = ops.linear(ops.multiply(weights.activation(ops, gate), up), layer.down)
        if layer.mlp_out_norm is not None:
            mlp = ops.rms_norm(mlp, layer.mlp_out_norm, eps)
        return ops.add(mlp, hidden)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, layer.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
