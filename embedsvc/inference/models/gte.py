"""GTE "new": rotary positions, GEGLU, layer norm after each residual (Zhang et al., 2024,
arXiv:2407.19669).

gte-multilingual-base, gte-base-en-v1.5 and arctic-embed-m-v2.0 are this architecture.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import (
    Base,
    Eps,
    Factor,
    RopeParameters,
    Sizes,
    refuse_odd_heads,
    refuse_other_ropes,
    refuse_remainder,
    refuse_unless,
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

UNUSED = ("pooler.", "classifier.", "lm_head.")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.",)
"""Parts of the names of tensors that are held as floats, also where they are quantised."""


class RopeScaling(msgspec.Struct, frozen=True):
    """Rotary positions stretched by fixed NTK (Su, 2023, kexue.fm/archives/9706, equation 6)."""

    factor: Factor
    type: Literal["ntk"]
    mixed_b: None = None


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    type_vocab_size: Annotated[int, Meta(ge=0)]
    layer_norm_eps: Eps
    hidden_act: HiddenAct
    layer_norm_type: Literal["layer_norm"] = "layer_norm"
    position_embedding_type: Literal["rope"] = "rope"
    rope_theta: Base
    rope_scaling: RopeScaling | None = None
    rope_parameters: RopeParameters | None = None
    pack_qkv: bool = True
    logn_attention_scale: bool = False

    def __post_init__(self) -> None:
        refuse_unless(self, pack_qkv=True, logn_attention_scale=False)
        refuse_other_ropes(self.rope_parameters, "default", "linear")
        refuse_odd_heads(self.head_size)

    @property
    def head_size(self) -> int:
        """The width of each attention head."""
        return refuse_remainder(self, "hidden_size", "num_attention_heads")

    def table_numbers(self, longest: int) -> int:
        """Numbers in the table of rotary positions."""
        return longest * self.head_size


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear  # D -> 3 D
    attention_out: Linear  # D -> D
    attention_norm: Norm
    up_gate: Linear  # D -> 2 intermediate
    activation: Activation
    down: Linear  # intermediate -> D
    mlp_norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    type_embeddings: Array | None  # (types, D); None: all tokens are of type 0
    embedding_norm: Norm
    rope: Array
    attention: Attention
    layers: tuple[Layer, ...]


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under the authors' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads
    size = config.head_size

    def layer(name: str) -> Layer:
        return Layer(
            qkv=read.linear(f"{name}.attention.qkv_proj", width, 3 * width),
            attention_out=read.linear(f"{name}.attention.o_proj", width, width),
            attention_norm=read.norm(f"{name}.attn_ln", width),
            up_gate=read.linear(f"{name}.mlp.up_gate_proj", width, 2 * inner, bias=False),
            activation=read_activation(tensors, config.hidden_act, f"{name}.mlp.act_fn"),
            down=read.linear(f"{name}.mlp.down_proj", inner, width),
            mlp_norm=read.norm(f"{name}.mlp_ln", width),
        )

    words, types = read.word_embeddings(
        config.vocab_size, config.type_vocab_size, width, pairs=inputs.pairs
    )
    return Weights(
        config=config,
        word_embeddings=words,
        type_embeddings=types,
        embedding_norm=read.norm("embeddings.LayerNorm", width),
        rope=ops.float32(_rope(config, inputs.longest)),
        attention=Attention(heads, heads, scale=size**-0.5),
        layers=tuple(layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers)),
    )


def _rope(config: Config, longest: int) -> Array:
    """The table of rotary positions, scaled as config.json says, in its older or newer way."""
    size = config.head_size
    new, scaling = config.rope_parameters, config.rope_scaling
    if new is not None:
        return rope_table(size, new.rope_theta, longest, slower=new.factor)
    if scaling is not None:
        theta = config.rope_theta * scaling.factor
        return rope_table(size, theta, longest, slower=scaling.factor ** (2 / size))
    return rope_table(size, config.rope_theta, longest)


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer, of the rows that are read (N or B, D)."""

    def embed(ids: Array, *types: Array) -> Array:
        hidden = ops.embedding(weights.word_embeddings, ids)
        for type_ in types:
            hidden = ops.add(hidden, ops.embedding(weights.type_embeddings, type_))
        return ops.layer_norm(hidden, weights.embedding_norm, weights.config.layer_norm_eps)

    types = () if weights.type_embeddings is None else (batch.types,)
    hidden = ops.rows(embed, batch.ids, *types)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights, layer, hidden, batch, read)
    return hidden


def _layer(
    ops: Ops, weights: Weights, layer: Layer, hidden: Array, batch: Batch, read: Read
) -> Array:
    config = weights.config
    width, inner = config.hidden_size, config.intermediate_size
    eps = config.layer_norm_eps

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        qk, v = columns(ops.linear(hidden, layer.qkv), 2 * width, width)
        return *columns(ops.rope(qk, weights.rope, positions), width, width), v

    def after_attention(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        hidden = ops.layer_norm(hidden, layer.attention_norm, eps)
        up, gate = columns(ops.linear(hidden, layer.up_gate), inner, inner)
        gated = ops.multiply(ops.activate(gate, layer.activation), up)
        hidden = ops.add(ops.linear(gated, layer.down), hidden)
        return ops.layer_norm(hidden, layer.mlp_norm, eps)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, weights.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
