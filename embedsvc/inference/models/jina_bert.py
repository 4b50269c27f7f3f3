"""Jina BERT v2: ALiBi and GEGLU in BERT (Günther et al., 2023, arXiv:2310.19923).

jina-embeddings-v2 are this architecture; their config.json says `bert`. The one for code has more
norms, of queries and keys, and of a layer's input that is added once more (as in NormFormer). Only
its tensors show that.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.configs import Eps, Sizes, refuse_remainder
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

UNUSED = ("pooler.", "cls.", "embeddings.position_ids")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.", ".up_gated_layer.")
"""Parts of the names of tensors that are held as floats, also where they are quantised."""


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    type_vocab_size: Annotated[int, Meta(ge=0)]
    layer_norm_eps: Eps
    feed_forward_type: Literal["geglu", "reglu"]
    position_embedding_type: Literal["alibi"]

    def __post_init__(self) -> None:
        refuse_remainder(self, "hidden_size", "num_attention_heads")

    def table_numbers(self, longest: int) -> int:
        """Numbers in the table of biases: one for every distance in a text, for each head."""
        return self.num_attention_heads * (2 * longest - 1)


@dataclass(frozen=True, slots=True)
class CodeNorms:
    """The norms that only the model for code has."""

    q: Norm
    k: Norm
    input: Norm


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear  # D -> 3 D
    attention_out: Linear  # D -> D
    attention_norm: Norm
    gate_up: Linear  # D -> 2 intermediate
    down: Linear  # intermediate -> D
    mlp_norm: Norm
    code_norms: CodeNorms | None


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    type_embeddings: Array | None  # (types, D); None: all tokens are of type 0
    embedding_norm: Norm
    attention: Attention
    activation: Activation
    """Of the gate."""
    layers: tuple[Layer, ...]


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under the authors' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads

    def gate_up(name: str, for_code: bool) -> Linear:
        if not for_code:
            return read.linear(f"{name}.gated_layers", width, 2 * inner, bias=False)
        stored = tensors.take(f"{name}.up_gated_layer.weight", 2 * inner, width)
        return ops.linear_layer(np.roll(stored, inner, axis=0), None)  # the gate comes second in it

    def code_norms(name: str) -> CodeNorms:
        return CodeNorms(
            q=read.norm(f"{name}.attention.self.layer_norm_q", width),
            k=read.norm(f"{name}.attention.self.layer_norm_k", width),
            input=read.norm(f"{name}.layer_norm_1", width),
        )

    def layer(name: str) -> Layer:
        block = f"{name}.attention"
        for_code = f"{block}.self.layer_norm_q.weight" in tensors
        down, norm = ("mlp.down_layer", "layer_norm_2") if for_code else ("mlp.wo", "mlp.layernorm")
        return Layer(
            qkv=read.joined({f"{block}.self.{x}": width for x in ("query", "key", "value")}, width),
            attention_out=read.linear(f"{block}.output.dense", width, width),
            attention_norm=read.norm(f"{block}.output.LayerNorm", width),
            gate_up=gate_up(f"{name}.mlp", for_code),
            down=read.linear(f"{name}.{down}", inner, width),
            mlp_norm=read.norm(f"{name}.{norm}", width),
            code_norms=code_norms(name) if for_code else None,
        )

    bias = -slopes(heads)[:, None] * np.abs(np.arange(1 - inputs.longest, inputs.longest))
    words, types = read.word_embeddings(
        config.vocab_size, config.type_vocab_size, width, pairs=inputs.pairs
    )
    return Weights(
        config=config,
        word_embeddings=words,
        type_embeddings=types,
        embedding_norm=read.norm("embeddings.LayerNorm", width),
        attention=Attention(heads, heads, scale=(width // heads) ** -0.5, bias=ops.array(bias)),
        activation=Activation("gelu" if config.feed_forward_type == "geglu" else "relu"),
        layers=tuple(layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers)),
    )


def slopes(heads: int) -> NDArray[np.float64]:
    """How much each head subtracts from a score for each token of distance (Press et al., 2021,
    arXiv:2108.12409).

    For n heads, a power of two, they are the powers of two from 2^(-8/n) to 2^-8. Of other numbers
    of heads, those beyond a power of two get every other slope of twice as many heads.

    >>> slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> slopes(6).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]
    """
    n = 2 ** math.floor(math.log2(heads))
    powers = [-8 * i / n for i in range(1, n + 1)]
    between = [-4 * i / n for i in range(1, 2 * n, 2)]
    return 2.0 ** np.array([*powers, *between][:heads])


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
    eps, code_norms = config.layer_norm_eps, layer.code_norms

    def before_attention(hidden: Array) -> tuple[Array, ...]:
        q, k, v = columns(ops.linear(hidden, layer.qkv), width, width, width)
        if code_norms is not None:
            q = ops.layer_norm(q, code_norms.q, eps)
            k = ops.layer_norm(k, code_norms.k, eps)
        return q, k, v

    def after_attention(context: Array, hidden: Array) -> Array:
        attended = ops.add(ops.linear(context, layer.attention_out), hidden)
        attended = ops.layer_norm(attended, layer.attention_norm, eps)
        if code_norms is not None:
            attended = ops.layer_norm(ops.add(attended, hidden), code_norms.input, eps)
        gate, up = columns(ops.linear(attended, layer.gate_up), inner, inner)
        gated = ops.multiply(ops.activate(gate, weights.activation), up)
        hidden = ops.add(ops.linear(gated, layer.down), attended)
        return ops.layer_norm(hidden, layer.mlp_norm, eps)

    q, k, v = ops.rows(before_attention, hidden)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, weights.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
