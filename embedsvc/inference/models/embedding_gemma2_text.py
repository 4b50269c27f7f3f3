"""EmbeddingGemma 2's text part: Gemma 4's layers, in which each token sees those that follow it,
and a gate in each layer that the word embeddings open (per-layer embeddings).

As transformers computes it; Google has published no paper on it. Layers that see all of a text have
wider heads than the others, and values are normed as queries and keys are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import (
    Eps,
    LayerType,
    Rows,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_unless,
    refuse_wrong_kinds,
)
from embedsvc.inference.models.gemma3_text import RopeByLayer
from embedsvc.inference.models.last_layer import read_rows, with_reads
from embedsvc.inference.models.rope import RopePlan, plan_rope
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

UNUSED = ("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio.")
"""Beginnings of the names of tensors that texts do not need."""


class Heads(msgspec.Struct, frozen=True):
    """The heads of a layer."""

    head_dim: Size
    num_key_value_heads: Size


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of `text_config` in config.json that the pass depends on."""

    num_key_value_heads: Size
    head_dim: Size
    rms_norm_eps: Eps
    hidden_activation: HiddenAct
    sliding_window: Rows
    layer_types: tuple[LayerType, ...]
    rope_parameters: RopeByLayer
    per_layer_config: dict[str, Heads]
    hidden_size_per_layer_input: Size
    embedding_dim: Size
    attention_bias: bool = False

    def __post_init__(self) -> None:
        refuse_unless(self, attention_bias=False)
        refuse_wrong_kinds(self.layer_types, self.num_hidden_layers)
        for kind in set(self.layer_types):
            self.rope(kind).check("default", "linear", "proportional")
        for index in range(self.num_hidden_layers):
            heads = self.heads(index)
            refuse_odd_heads(heads.head_dim)
            if self.num_attention_heads % heads.num_key_value_heads:
                raise ValueError(
                    f"`num_attention_heads` of {self.num_attention_heads} is not a multiple of "
                    f"`num_key_value_heads`, {heads.num_key_value_heads}"
                )

    def heads(self, index: int) -> Heads:
        """The heads of a layer."""
        own = Heads(self.head_dim, self.num_key_value_heads)
        return self.per_layer_config.get(str(index), own)

    def rope(self, kind: LayerType) -> RopePlan:
        """How the positions of a kind of layer turn."""
        full = kind == "full_attention"
        by_layer = self.rope_parameters
        stated = by_layer.full_attention if full else by_layer.sliding_attention
        return plan_rope(1_000_000.0 if full else 10_000.0, self.max_position_embeddings, stated)

    def views(self) -> set[tuple[LayerType, int]]:
        """The kinds of layers and the widths of their heads, of which each has a table."""
        kinds = enumerate(self.layer_types)
        return {(kind, self.heads(index).head_dim) for index, kind in kinds}

    def table_numbers(self, longest: int) -> int:
        """Numbers in the tables of rotary positions."""
        return sum(longest * size for _, size in self.views())


@dataclass(frozen=True, slots=True)
class Layer:
    rope: Array  # (longest, head_dim)
    attention: Attention
    size: int
    eps: float
    """Of the norms of what comes into the layer: see `_read_layer`."""
    attention_norm: Array  # (D,)
    qkv: Linear  # D -> (heads + 2 kv_heads) * head_dim
    q_norm: Array  # (head_dim,)
    k_norm: Array  # (head_dim,)
    v_norm: Array  # (head_dim,), ones
    attention_out: Linear  # heads * head_dim -> D
    attention_out_norm: Array  # (D,)
    mlp_norm: Array  # (D,)
    gate_up: Linear  # D -> 2 intermediate
    activation: Activation
    down: Linear  # intermediate -> D
    mlp_out_norm: Array  # (D,)
    opens: Linear  # D -> P, of word embeddings
    opens_norm: Array  # (P,)
    gate: Linear  # D -> P
    gate_activation: Activation
    gate_out: Linear  # P -> D
    gate_out_norm: Array  # (D,)


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    layers: tuple[Layer, ...]
    final_norm: Array  # (D,)
    final_eps: float
    projection: Linear  # D -> embedding_dim


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    width, part = config.hidden_size, config.hidden_size_per_layer_input
    views: dict[tuple[LayerType, int], Array] = {
        (kind, size): ops.float32(config.rope(kind).table(size, inputs.longest))
        for kind, size in config.views()
    }
    words = tensors.take_weight("embed_tokens.weight", config.vocab_size, width)
    count = config.num_hidden_layers
    opens = tensors.take("ple.per_layer_model_projection.weight", count * part, width)
    opens_norm = ops.array(tensors.take("ple.per_layer_projection_norm.weight", part))
    layers: list[Layer] = []
    scale = 1.0
    for index, own in enumerate(np.split(opens * np.float32(width**-0.5), count)):
        layers.append(_read_layer(ops, tensors, config, index, views, scale, own, opens_norm))
        scale *= _number(tensors, f"layers.{index}.layer_scalar", scale)
    return Weights(
        config=config,
        word_embeddings=ops.table(words * np.float32(width**0.5)),
        layers=tuple(layers),
        final_norm=ops.array(tensors.take("norm.weight", width) * np.float32(np.sign(scale))),
        final_eps=config.rms_norm_eps / scale**2,
        projection=WeightReader(ops, tensors).linear(
            "embedding_projection", width, config.embedding_dim, bias=False
        ),
    )


def _number(tensors: Tensors, name: str, before: float) -> float:
    """What a layer multiplies its states by. Raises `CheckpointError`."""
    number = float(tensors.take(name, 1)[0])
    if not 1e-6 <= abs(number * before) <= 1e6:
        raise tensors.error(f"tensor `{name}` is {number:g}, which is not supported")
    return number


def _read_layer(
    ops: Ops,
    tensors: Tensors,
    config: Config,
    index: int,
    views: Mapping[tuple[LayerType, int], Array],
    scale: float,
    opens: NDArray[np.float32],
    opens_norm: Array,
) -> Layer:
    """A layer.

    Each layer multiplies its states by a number that it has learned; `scale` is the product of
    those before. Here states stay as they are, and what is added to them is divided by `scale`. An
    RMS norm gives the same of both, for an `eps` that is divided by its square.
    """
    read, name, kind = WeightReader(ops, tensors), f"layers.{index}", config.layer_types[index]
    heads, kv_heads = config.num_attention_heads, config.heads(index).num_key_value_heads
    size, width, inner = config.heads(index).head_dim, config.hidden_size, config.intermediate_size
    window = config.sliding_window if kind == "sliding_attention" else None
    part, block = config.hidden_size_per_layer_input, f"{name}.self_attn"
    widths = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
    qkv = {f"{block}.{x}_proj": n for x, n in widths.items()}

    def norm(of: str, width: int, times: float = 1.0) -> Array:
        return ops.array(tensors.take(f"{of}.weight", width) * np.float32(times))

    before, sign = 1 / scale, float(np.sign(scale))
    return Layer(
        rope=views[kind, size],
        attention=Attention(heads, kv_heads, window=window),
        size=size,
        eps=config.rms_norm_eps / scale**2,
        attention_norm=norm(f"{name}.input_layernorm", width, sign),
        qkv=read.joined(qkv, width, bias=False),
        q_norm=norm(f"{block}.q_norm", size),
        k_norm=norm(f"{block}.k_norm", size),
        v_norm=ops.array(np.ones(size, np.float32)),
        attention_out=read.linear(f"{block}.o_proj", heads * size, width, bias=False),
        attention_out_norm=norm(f"{name}.post_attention_layernorm", width, before),
        mlp_norm=norm(f"{name}.pre_feedforward_layernorm", width, sign),
        gate_up=read.joined(
            {f"{name}.mlp.{x}_proj": inner for x in ("gate", "up")}, width, bias=False
        ),
        activation=read_activation(tensors, config.hidden_activation, f"{name}.mlp.act_fn"),
        down=read.linear(f"{name}.mlp.down_proj", inner, width, bias=False),
        mlp_out_norm=norm(f"{name}.post_feedforward_layernorm", width, before),
        opens=ops.linear_layer(opens, None),
        opens_norm=opens_norm,
        gate=ops.linear_layer(
            tensors.take(f"{name}.ple_block.per_layer_input_gate.weight", part, width)
            * np.float32(scale),
            None,
        ),
        gate_activation=read_activation(
            tensors, config.hidden_activation, f"{name}.ple_block.act_fn"
        ),
        gate_out=read.linear(f"{name}.ple_block.per_layer_projection", part, width, bias=False),
        gate_out_norm=norm(f"{name}.ple_block.post_per_layer_input_norm", width, before),
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """What the last layer's states are projected to, of the rows that are read (N or B, E)."""
    words = ops.embedding(weights.word_embeddings, batch.ids)
    hidden = ops.copy(words)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights.config, layer, hidden, words, batch, read)

    def project(hidden: Array) -> Array:
        normed = ops.rms_norm(hidden, weights.final_norm, weights.final_eps)
        return ops.linear(normed, weights.projection)

    return ops.rows(project, hidden)


def _layer(
    ops: Ops, config: Config, layer: Layer, hidden: Array, words: Array, batch: Batch, read: Read
) -> Array:
    eps, inner, attention = config.rms_norm_eps, config.intermediate_size, layer.attention
    q_width, kv_width = attention.heads * layer.size, attention.kv_heads * layer.size

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        normed = ops.rms_norm(ops.copy(hidden), layer.attention_norm, layer.eps)
        q, k, v = columns(ops.linear(normed, layer.qkv), q_width, kv_width, kv_width)
        q = ops.rope(ops.rms_norm(q, layer.q_norm, eps), layer.rope, positions)
        k = ops.rope(ops.rms_norm(k, layer.k_norm, eps), layer.rope, positions)
        return q, k, ops.rms_norm(v, layer.v_norm, eps)

    def after_attention(context: Array, hidden: Array, words: Array) -> Array:
        attended = ops.linear(context, layer.attention_out)
        hidden = ops.add(ops.rms_norm(attended, layer.attention_out_norm, eps), hidden)
        normed = ops.rms_norm(ops.copy(hidden), layer.mlp_norm, layer.eps)
        gate, up = columns(ops.linear(normed, layer.gate_up), inner, inner)
        gated = ops.multiply(ops.activate(gate, layer.activation), up)
        mlp = ops.rms_norm(ops.linear(gated, layer.down), layer.mlp_out_norm, eps)
        hidden = ops.add(mlp, hidden)
        gate = ops.activate(ops.linear(hidden, layer.gate), layer.gate_activation)
        opened = ops.multiply(
            gate, ops.rms_norm(ops.linear(words, layer.opens), layer.opens_norm, eps)
        )
        added = ops.rms_norm(ops.linear(opened, layer.gate_out), layer.gate_out_norm, eps)
        return ops.add(added, hidden)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden, words = read_rows(ops, read, batch, q, hidden, words)
    context = ops.attention(q, k, v, attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden, words)
