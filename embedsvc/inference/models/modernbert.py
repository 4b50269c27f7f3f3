"""ModernBERT: rotary positions, GEGLU, norms before each block, and attention to all of a text in
every third layer and to a window of it in the others (Warner et al., 2024, arXiv:2412.13663).

modernbert-embed-base, gte-modernbert-base and granite-embedding r2 are this architecture.
"""

from dataclasses import dataclass
from functools import partial

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import (
    Base,
    Eps,
    Layers,
    LayerType,
    RopeByLayer,
    Rows,
    Sizes,
    refuse_odd_heads,
    refuse_other_ropes,
    refuse_remainder,
    refuse_wrong_kinds,
)
from embedsvc.inference.models.last_layer import read_rows, with_reads
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Inputs,
    Linear,
    Norm,
    Ops,
    Read,
    columns,
    rope_table,
)

UNUSED = ("head.", "decoder.", "classifier.")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    norm_eps: Eps
    local_attention: Rows
    hidden_activation: HiddenAct
    layer_types: tuple[LayerType, ...] | None = None
    global_attn_every_n_layers: Layers = 3
    rope_parameters: RopeByLayer | None = None
    global_rope_theta: Base = 160_000.0
    local_rope_theta: Base | None = 10_000.0
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False

    def __post_init__(self) -> None:
        refuse_odd_heads(self.head_size)
        refuse_other_ropes(self.rope_parameters, "default")
        refuse_wrong_kinds(self.layer_types, self.num_hidden_layers)

    @property
    def head_size(self) -> int:
        """The width of each attention head."""
        return refuse_remainder(self, "hidden_size", "num_attention_heads")

    def table_numbers(self, longest: int) -> int:
        """Numbers in the tables of rotary positions, one table for each kind of layer."""
        return longest * self.head_size * len(set(self.kinds()))

    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer."""
        return self.layer_types or tuple(
            "sliding_attention" if i % self.global_attn_every_n_layers else "full_attention"
            for i in range(self.num_hidden_layers)
        )

    def theta(self, kind: LayerType) -> float:
        """The base of the rotary positions of a kind of layer."""
        if self.rope_parameters is not None:
            return self.rope_parameters.of(kind).rope_theta
        if kind == "sliding_attention" and self.local_rope_theta is not None:
            return self.local_rope_theta
        return self.global_rope_theta


@dataclass(frozen=True, slots=True)
class Layer:
    rope: Array  # (longest, head size)
    attention: Attention
    attention_norm: Norm | None  # the first layer has none
    qkv: Linear  # D -> 3 D
    attention_out: Linear  # D -> D
    mlp_norm: Norm
    up_gate: Linear  # D -> 2 intermediate
    activation: Activation
    down: Linear  # intermediate -> D


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    embedding_norm: Norm
    layers: tuple[Layer, ...]
    final_norm: Norm


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads
    size = config.head_size

    def view(kind: LayerType) -> tuple[Array, Attention]:
        window = config.local_attention // 2 if kind == "sliding_attention" else None
        table = rope_table(size, config.theta(kind), inputs.longest)
        return ops.float32(table), Attention(heads, heads, scale=size**-0.5, window=window)

    def norm(name: str) -> Norm:
        return read.norm(name, width, bias=config.norm_bias)

    def layer(name: str, index: int, rope: Array, attention: Attention) -> Layer:
        attention_bias, mlp_bias = config.attention_bias, config.mlp_bias
        return Layer(
            rope=rope,
            attention=attention,
            attention_norm=norm(f"{name}.attn_norm") if index else None,
            qkv=read.linear(f"{name}.attn.Wqkv", width, 3 * width, bias=attention_bias),
            attention_out=read.linear(f"{name}.attn.Wo", width, width, bias=attention_bias),
            mlp_norm=norm(f"{name}.mlp_norm"),
            up_gate=read.linear(f"{name}.mlp.Wi", width, 2 * inner, bias=mlp_bias),
            activation=read_activation(tensors, config.hidden_activation, f"{name}.mlp.act"),
            down=read.linear(f"{name}.mlp.Wo", inner, width, bias=mlp_bias),
        )

    kinds = config.kinds()
    views = {kind: view(kind) for kind in set(kinds)}
    return Weights(
        config=config,
        word_embeddings=read.array("embeddings.tok_embeddings.weight", config.vocab_size, width),
        embedding_norm=norm("embeddings.norm"),
        layers=tuple(layer(f"layers.{i}", i, *views[kind]) for i, kind in enumerate(kinds)),
        final_norm=norm("final_norm"),
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer after its norm, of the rows that are read (N or B, D)."""
    eps = weights.config.norm_eps

    def embed(ids: Array) -> Array:
        return ops.layer_norm(
            ops.embedding(weights.word_embeddings, ids), weights.embedding_norm, eps
        )

    hidden = ops.rows(embed, batch.ids)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights, layer, hidden, batch, read)
    return ops.rows(partial(ops.layer_norm, norm=weights.final_norm, eps=eps), hidden)


def _layer(
    ops: Ops, weights: Weights, layer: Layer, hidden: Array, batch: Batch, read: Read
) -> Array:
    config = weights.config
    width, inner, eps = config.hidden_size, config.intermediate_size, config.norm_eps

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        if layer.attention_norm is not None:
            hidden = ops.layer_norm(ops.copy(hidden), layer.attention_norm, eps)
        qk, v = columns(ops.linear(hidden, layer.qkv), 2 * width, width)
        return *columns(ops.rope(qk, layer.rope, positions), width, width), v

    def after_attention(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        normed = ops.layer_norm(ops.copy(hidden), layer.mlp_norm, eps)
        up, gate = columns(ops.linear(normed, layer.up_gate), inner, inner)
        gated = ops.multiply(ops.activate(up, layer.activation), gate)
        return ops.add(ops.linear(gated, layer.down), hidden)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, layer.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
