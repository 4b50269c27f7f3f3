"""BERT: learned positions, layer norm after each residual (Devlin et al., 2018, arXiv:1810.04805).

MiniLM, BGE, E5, GTE (v1) and Arctic (v1) are this architecture.
"""

from dataclasses import dataclass
from typing import Literal

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import Eps, Size, Sizes, refuse_remainder
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
)

UNUSED = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.position_embeddings.", "embeddings.token_type_embeddings.")
"""Parts of the names of tensors that are held as floats, also where they are quantised."""


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    type_vocab_size: Size
    layer_norm_eps: Eps
    hidden_act: HiddenAct
    position_embedding_type: Literal["absolute"] = "absolute"

    def __post_init__(self) -> None:
        refuse_remainder(self, "hidden_size", "num_attention_heads")


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear  # D -> 3 D
    attention_out: Linear  # D -> D
    attention_norm: Norm
    up: Linear  # D -> intermediate
    activation: Activation
    down: Linear  # intermediate -> D
    mlp_norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    word_embeddings: Array  # (vocabulary, E)
    position_embeddings: Array  # (positions, E)
    embedding_norm: Norm
    attention: Attention
    layers: tuple[Layer, ...]
    width: int
    eps: float
    type_embeddings: Array | None = None  # (types, E); None: type 0 was added to the positions
    projection: Linear | None = None  # E -> D; None: they are as wide


def prepare(
    ops: Ops,
    tensors: Tensors,
    config: Config,
    inputs: Inputs,
    *,
    first_position: int = 0,
    embedding_width: int | None = None,
    projection: str | None = None,
    layers: tuple[Layer, ...] | None = None,
) -> Weights:
    """Weights on the device, from tensors under transformers' names.

    RoBERTa's table of positions begins with rows that no token has; `first_position` skips them.
    Without pairs all tokens are of type 0, whose embedding is added to that of the position.
    Embeddings may be of another width than layers, and `projection` is the name of the layer
    between them. `layers` are BERT's own if they are not given.
    """
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads

    def layer(name: str) -> Layer:
        block = f"{name}.attention"
        return Layer(
            qkv=read.joined({f"{block}.self.{x}": width for x in ("query", "key", "value")}, width),
            attention_out=read.linear(f"{block}.output.dense", width, width),
            attention_norm=read.norm(f"{block}.output.LayerNorm", width),
            up=read.linear(f"{name}.intermediate.dense", width, inner),
            activation=read_activation(
                tensors, config.hidden_act, f"{name}.intermediate.intermediate_act_fn"
            ),
            down=read.linear(f"{name}.output.dense", inner, width),
            mlp_norm=read.norm(f"{name}.output.LayerNorm", width),
        )

    narrow = embedding_width or width
    places, kinds = config.max_position_embeddings, config.type_vocab_size
    positions = tensors.take("embeddings.position_embeddings.weight", places, narrow)
    positions = positions[first_position:][: inputs.longest]
    types = tensors.take("embeddings.token_type_embeddings.weight", kinds, narrow)
    return Weights(
        word_embeddings=read.array("embeddings.word_embeddings.weight", config.vocab_size, narrow),
        position_embeddings=ops.array(positions if inputs.pairs else positions + types[0]),
        embedding_norm=read.norm("embeddings.LayerNorm", narrow),
        attention=Attention(heads, heads, scale=(width // heads) ** -0.5),
        layers=layers
        or tuple(layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers)),
        width=width,
        eps=config.layer_norm_eps,
        type_embeddings=ops.array(types) if inputs.pairs else None,
        projection=read.linear(projection, narrow, width) if projection else None,
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer, of the rows that are read (N or B, D).

    On a CPU with kernels in C this function is not run for each batch: it is called once with
    stand-ins for `ops` and `batch`, and what it asks for is recorded on a tape that the kernels
    then run (`embedsvc/inference/ops/native/tape.py`).
    """

    def embed(ids: Array, positions: Array, *types: Array) -> Array:
        hidden = ops.embedding(weights.word_embeddings, ids)
        hidden = ops.add(hidden, ops.embedding(weights.position_embeddings, positions))
        for type_ in types:
            hidden = ops.add(hidden, ops.embedding(weights.type_embeddings, type_))
        hidden = ops.layer_norm(hidden, weights.embedding_norm, weights.eps)
        return hidden if weights.projection is None else ops.linear(hidden, weights.projection)

    types = () if weights.type_embeddings is None else (batch.types,)
    hidden = ops.rows(embed, batch.ids, batch.positions, *types)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights, layer, hidden, batch, read)
    return hidden


def _layer(
    ops: Ops, weights: Weights, layer: Layer, hidden: Array, batch: Batch, read: Read
) -> Array:
    width, eps = weights.width, weights.eps

    def before_attention(hidden: Array) -> tuple[Array, ...]:
        return columns(ops.linear(hidden, layer.qkv), width, width, width)

    def after_attention(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        hidden = ops.layer_norm(hidden, layer.attention_norm, eps)
        inner = ops.activate(ops.linear(hidden, layer.up), layer.activation)
        hidden = ops.add(ops.linear(inner, layer.down), hidden)
        return ops.layer_norm(hidden, layer.mlp_norm, eps)

    q, k, v = ops.rows(before_attention, hidden)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, weights.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
