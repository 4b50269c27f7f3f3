"""What decoders share: rotary positions, RMS norms, a gated MLP, and keys and values that serve
several heads of queries (Ainslie et al., 2023, arXiv:2305.13245).

The file of a family has its `Config`, and says in `Switches` how it differs from the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import (
    Eps,
    LayerType,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_remainder,
    refuse_wrong_kinds,
)
from embedsvc.inference.models.last_layer import read_rows, with_reads
from embedsvc.inference.models.rope import RopePlan
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Inputs,
    Linear,
    Ops,
    Read,
    columns,
)

UNUSED = ("lm_head.",)
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
BOTH_WAYS = ("bidirec", "eurobert")
"""Parts of the names of classes, and of kinds, in which each token sees those that follow it."""


class Config(Sizes, frozen=True, kw_only=True):
    """What decoders spell alike in config.json."""

    model_type: str
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    rms_norm_eps: Eps
    layer_types: tuple[LayerType, ...] | None = None
    architectures: tuple[str, ...] | None = None
    auto_map: dict[str, Any] | None = None
    is_causal: bool | None = None
    use_bidirectional_attention: bool | None = False

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.kv_heads:
            refuse_remainder(self, "num_attention_heads", "num_key_value_heads")
        refuse_odd_heads(self.head_size)
        refuse_wrong_kinds(self.layer_types, self.num_hidden_layers)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """The width of each head."""
        if self.head_dim is not None:
            return self.head_dim
        return refuse_remainder(self, "hidden_size", "num_attention_heads")

    @property
    def causal(self) -> bool:
        """Whether each token sees only those before it: unless something says otherwise."""
        own = str((self.auto_map or {}).get("AutoModel"))  # the class in its repository, if any
        names = " ".join((self.model_type, own, *(self.architectures or ()))).lower()
        both_ways = any(part in names for part in BOTH_WAYS)
        return not (self.is_causal is False or self.use_bidirectional_attention or both_ways)

    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer."""
        return self.layer_types or ("full_attention",) * self.num_hidden_layers

    def table_numbers(self, longest: int) -> int:
        """Numbers in the tables of rotary positions, one table for each kind of layer."""
        return longest * self.head_size * len(set(self.kinds()))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How the layers of one kind see a text."""

    rope: RopePlan
    scale: float
    """What products of queries and keys are multiplied by."""
    causal: bool
    window: int | None = None
    """See `Attention.window`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """How a decoder differs from the others."""

    views: Mapping[LayerType, View]
    hidden_act: HiddenAct
    """The activation of the gate."""
    norms_of_heads: bool = True
    """Whether each head of queries and keys is normed before it turns."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases."""
    out_bias: bool = False
    """Whether the layer that follows attention has one."""
    mlp_bias: bool = False
    """Whether the layers of the MLP have biases."""
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
    q_norm: Array | None  # (head_dim,)
    k_norm: Array | None  # (head_dim,)
    attention_out: Linear  # heads * head_dim -> D
    attention_out_norm: Array | None  # (D,)
    mlp_norm: Array  # (D,)
    gate_up: Linear  # D -> 2 intermediate
    activation: Activation
    down: Linear  # intermediate -> D
    mlp_out_norm: Array | None  # (D,)


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    layers: tuple[Layer, ...]
    final_norm: Array  # (D,)


def prepare(
    ops: Ops, tensors: Tensors, config: Config, inputs: Inputs, switches: Switches
) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner, size = config.hidden_size, config.intermediate_size, config.head_size
    heads, kv_heads = config.num_attention_heads, config.kv_heads
    after, of_heads = switches.norms_after_blocks, switches.norms_of_heads
    mlp_bias = switches.mlp_bias

    def see(view: View) -> tuple[Array, Attention]:
        rope = ops.float32(view.rope.table(size, inputs.longest))
        return rope, Attention(heads, kv_heads, view.scale, view.causal, view.window)

    def norm(name: str, width: int) -> Array:
        weight = tensors.take(f"{name}.weight", width)
        return ops.array(1 + weight if switches.norms_add_one else weight)

    def layer(name: str, rope: Array, attention: Attention) -> Layer:
        block = f"{name}.self_attn"
        widths = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        qkv = {f"{block}.{x}_proj": n for x, n in widths.items()}
        gate_up = {f"{name}.mlp.{x}_proj": inner for x in ("gate", "up")}
        # `post_attention_layernorm` is before the MLP where no block has a norm after it.
        before_mlp = "pre_feedforward_layernorm" if after else "post_attention_layernorm"
        return Layer(
            rope=rope,
            attention=attention,
            attention_norm=norm(f"{name}.input_layernorm", width),
            qkv=read.joined(qkv, width, bias=switches.qkv_bias),
            q_norm=norm(f"{block}.q_norm", size) if of_heads else None,
            k_norm=norm(f"{block}.k_norm", size) if of_heads else None,
            attention_out=read.linear(
                f"{block}.o_proj", heads * size, width, bias=switches.out_bias
            ),
            attention_out_norm=norm(f"{name}.post_attention_layernorm", width) if after else None,
            mlp_norm=norm(f"{name}.{before_mlp}", width),
            gate_up=read.joined(gate_up, width, bias=mlp_bias),
            activation=read_activation(tensors, switches.hidden_act, f"{name}.mlp.act_fn"),
            down=read.linear(f"{name}.mlp.down_proj", inner, width, bias=mlp_bias),
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
    eps, inner, size = config.rms_norm_eps, config.intermediate_size, config.head_size
    q_width, kv_width = config.num_attention_heads * size, config.kv_heads * size

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        normed = ops.rms_norm(ops.copy(hidden), layer.attention_norm, eps)
        qkv = ops.linear(normed, layer.qkv)
        if layer.q_norm is None:
            qk, v = columns(qkv, q_width + kv_width, kv_width)
            return *columns(ops.rope(qk, layer.rope, positions), q_width, kv_width), v
        q, k, v = columns(qkv, q_width, kv_width, kv_width)
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
        gated = ops.multiply(ops.activate(gate, layer.activation), up)
        mlp = ops.linear(gated, layer.down)
        if layer.mlp_out_norm is not None:
            mlp = ops.rms_norm(mlp, layer.mlp_out_norm, eps)
        return ops.add(mlp, hidden)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, layer.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
