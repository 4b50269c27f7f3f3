"""DeBERTa v2 and v3: BERT with scores for where tokens stand beside those for what they are (He et
al., 2020, arXiv:2006.03654; 2021, arXiv:2111.09543).

How far a key is from a query, in buckets that grow with the distance, has an embedding. Queries are
multiplied with its key (`c2p`), keys with its query (`p2c`). v2-xlarge has a convolution beside the
first layer. mxbai-rerank-v1 and many classifiers of entailment are this architecture.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import Eps, Size, Sizes, refuse_remainder
from embedsvc.inference.models.last_layer import read_rows
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
    columns,
)
from embedsvc.inference.ops.layers import Relative

UNUSED = (
    "pooler.",
    "cls.",
    "lm_predictions.",
    "mask_predictions.",
    "embeddings.position_embeddings.",
    "embeddings.position_ids",
)
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.", "encoder.rel_embeddings.", ".pos_", ".query_proj.", ".key_proj.")
"""Parts of the names of tensors that are held as floats, also where they are quantised."""
Count = Annotated[int, Meta(ge=0, le=1 << 20)]
Positions = Annotated[int, Meta(ge=-1, le=1 << 20)]


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    type_vocab_size: Count = 0
    layer_norm_eps: Eps
    hidden_act: HiddenAct
    embedding_size: Size | None = None
    attention_head_size: Size | None = None
    relative_attention: bool = False
    pos_att_type: tuple[Literal["c2p", "p2c"], ...] | str | None = None
    max_relative_positions: Positions = -1
    position_buckets: Positions = -1
    share_att_key: bool = False
    position_biased_input: bool = True
    norm_rel_ebd: str = "none"
    conv_kernel_size: Count = 0
    conv_groups: Size = 1
    conv_act: HiddenAct = "tanh"

    def __post_init__(self) -> None:
        refuse_remainder(self, "hidden_size", "num_attention_heads")
        refuse_remainder(self, "hidden_size", "conv_groups")
        if unknown := set(self.ways) - {"c2p", "p2c"}:
            raise ValueError(f"`pos_att_type` of {min(unknown)} is not supported (only c2p, p2c)")
        if self.conv_kernel_size and self.conv_kernel_size % 2 == 0:
            raise ValueError(f"`conv_kernel_size` of {self.conv_kernel_size} is even")

    @property
    def ways(self) -> tuple[str, ...]:
        """What is multiplied with the embeddings of distances."""
        if isinstance(self.pos_att_type, str):
            return tuple(part.strip() for part in self.pos_att_type.lower().split("|"))
        return self.pos_att_type or ()

    @property
    def head_size(self) -> int:
        """The width of each attention head."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def farthest(self) -> int:
        """The distance from which on all have the same embedding."""
        stated = self.max_relative_positions
        return stated if stated >= 1 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Embeddings of distances in each direction."""
        return self.position_buckets if self.position_buckets > 0 else self.farthest

    def table_numbers(self, longest: int) -> int:
        """Numbers in the keys and queries of distances, which are made for each layer."""
        if not self.relative_attention:
            return 0
        width = self.num_attention_heads * self.head_size
        return len(self.ways) * self.num_hidden_layers * 2 * self.span * width


@dataclass(frozen=True, slots=True)
class Convolution:
    """What neighbours give a token, added after the first layer."""

    taps: tuple[Linear, ...]  # D -> D each, for the tokens before, the token and those behind it
    activation: Activation
    norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    word_embeddings: Array  # (vocabulary, E)
    position_embeddings: Array | None  # (positions, E)
    type_embeddings: Array | None  # (types, E); None: type 0 was added to the words
    projection: Linear | None  # E -> D; None: they are as wide
    embedding_norm: Norm
    layers: tuple[bert.Layer, ...]
    attentions: tuple[Attention, ...]
    convolution: Convolution | None
    width: int
    """Of all heads together."""
    eps: float


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
    narrow = config.embedding_size or width
    heads, size = config.num_attention_heads, config.head_size
    scale = (size * (1 + len(set(config.ways)))) ** -0.5
    distances = _distances(tensors, config)
    buckets = relative_buckets(config, inputs.longest)

    def part(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = tensors.take(f"{name}.weight", heads * size, width)
        return weight, tensors.take(f"{name}.bias", heads * size)

    def by_head(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Array:
        made = np.asarray(distances) @ weight.T + bias  # (2 span, heads * size)
        return ops.array(made.reshape(-1, heads, size).swapaxes(0, 1))

    def layer(name: str) -> tuple[bert.Layer, Attention]:
        own = f"{name}.attention.self"
        q, k, v = (part(f"{own}.{x}_proj") for x in ("query", "key", "value"))
        relative = None
        if distances is not None and config.ways:
            shared = config.share_att_key
            keys = queries = None
            if "c2p" in config.ways:
                keys = by_head(*(k if shared else part(f"{own}.pos_key_proj")))
            if "p2c" in config.ways:
                queries = by_head(*(q if shared else part(f"{own}.pos_query_proj")))
            relative = Relative(buckets, keys, queries)
        weight, bias = (np.concatenate(parts) for parts in zip(q, k, v, strict=True))
        output = f"{name}.intermediate.intermediate_act_fn"
        return bert.Layer(
            qkv=ops.linear_layer(weight, bias),
            attention_out=read.linear(f"{name}.attention.output.dense", heads * size, width),
            attention_norm=read.norm(f"{name}.attention.output.LayerNorm", width),
            up=read.linear(f"{name}.intermediate.dense", width, inner),
            activation=read_activation(tensors, config.hidden_act, output),
            down=read.linear(f"{name}.output.dense", inner, width),
            mlp_norm=read.norm(f"{name}.output.LayerNorm", width),
        ), Attention(heads, heads, scale=scale, relative=relative)

    words, types = read.word_embeddings(
        config.vocab_size, config.type_vocab_size, narrow, pairs=inputs.pairs
    )
    positions = None
    if config.position_biased_input:
        places = config.max_position_embeddings
        positions = ops.array(
            tensors.take("embeddings.position_embeddings.weight", places, narrow)[: inputs.longest]
        )
    projected = narrow != width
    layers = [layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers)]
    return Weights(
        word_embeddings=words,
        position_embeddings=positions,
        type_embeddings=types,
        projection=read.linear("embeddings.embed_proj", narrow, width, bias=False)
        if projected
        else None,
        embedding_norm=read.norm("embeddings.LayerNorm", width),
        layers=tuple(each for each, _ in layers),
        attentions=tuple(attention for _, attention in layers),
        convolution=_convolution(read, config) if config.conv_kernel_size else None,
        width=heads * size,
        eps=eps,
    )


def _distances(tensors: Tensors, config: Config) -> NDArray[np.float32] | None:
    """The embeddings of distances (2 span, D), after their norm; None if there are none."""
    width = config.hidden_size
    if not config.relative_attention:
        return None
    table = tensors.take("encoder.rel_embeddings.weight", 2 * config.span, width)
    if "layer_norm" not in [part.strip() for part in config.norm_rel_ebd.lower().split("|")]:
        return table
    weight, bias = (tensors.take(f"encoder.LayerNorm.{x}", width) for x in ("weight", "bias"))
    wide = table.astype(np.float64)
    deviation = np.sqrt(wide.var(axis=1, keepdims=True) + config.layer_norm_eps)
    normed = (wide - wide.mean(axis=1, keepdims=True)) / deviation * weight + bias
    return normed.astype(np.float32)


def relative_buckets(config: Config, longest: int) -> NDArray[np.int32]:
    """The row of the embedding of every distance, by key less query, from 1 - longest on.

    Near ones have a row each, and farther ones share rows with more and more others.
    """
    back = -np.arange(1 - longest, longest)  # query less key
    found = back
    if config.position_buckets > 0 and config.farthest > 0:
        half, last = config.position_buckets // 2, config.farthest - 1
        away = np.maximum(np.abs(back), 1).astype(np.float32)
        steps = np.log(away / np.float32(half)) / np.log(np.float32(last / half))
        far = (np.ceil(steps * np.float32(half - 1)) + half) * np.sign(back)
        found = np.where(np.abs(back) <= half, back, far)
    rows = np.clip(found.astype(np.int64) + config.span, 0, 2 * config.span - 1)
    return rows.astype(np.int32)


def _convolution(read: WeightReader, config: Config) -> Convolution:
    width, groups, size = config.hidden_size, config.conv_groups, config.conv_kernel_size
    own = width // groups
    stored = read.tensors.take("encoder.conv.conv.weight", width, own, size)
    whole = np.zeros((width, width, size), np.float32)
    for group in range(groups):
        part = slice(group * own, (group + 1) * own)
        whole[part, part] = stored[part]
    bias = read.tensors.take("encoder.conv.conv.bias", width)
    taps = [read.ops.linear_layer(whole[:, :, i], None if i else bias) for i in range(size)]
    return Convolution(
        taps=tuple(taps),
        activation=read_activation(read.tensors, config.conv_act, "encoder.conv.conv_act"),
        norm=read.norm("encoder.conv.LayerNorm", width),
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer, of the rows that are read (N or B, D)."""

    def embed(ids: Array, positions: Array, *types: Array) -> Array:
        hidden = ops.embedding(weights.word_embeddings, ids)
        if weights.position_embeddings is not None:
            hidden = ops.add(hidden, ops.embedding(weights.position_embeddings, positions))
        for type_ in types:
            hidden = ops.add(hidden, ops.embedding(weights.type_embeddings, type_))
        if weights.projection is not None:
            hidden = ops.linear(hidden, weights.projection)
        return ops.layer_norm(hidden, weights.embedding_norm, weights.eps)

    types = () if weights.type_embeddings is None else (batch.types,)
    embedded = ops.rows(embed, batch.ids, batch.positions, *types)
    hidden = embedded if weights.convolution is None else ops.copy(embedded)
    for index, (layer, attention) in enumerate(
        zip(weights.layers, weights.attentions, strict=True)
    ):
        hidden = _layer(ops, weights, layer, attention, hidden, batch)
        if index == 0 and weights.convolution is not None:
            hidden = _convolve(ops, weights, weights.convolution, embedded, hidden, batch)
    return read_rows(ops, batch.read, batch, hidden)[0]


def _convolve(
    ops: Ops, weights: Weights, layer: Convolution, embedded: Array, hidden: Array, batch: Batch
) -> Array:
    middle = len(layer.taps) // 2
    shifted = [
        embedded if i == middle else ops.shift(embedded, i - middle, batch.layout)
        for i in range(len(layer.taps))
    ]

    def add(hidden: Array, *neighbours: Array) -> Array:
        total = ops.linear(neighbours[0], layer.taps[0])
        for rows, tap in zip(neighbours[1:], layer.taps[1:], strict=True):
            total = ops.add(ops.linear(rows, tap), total)
        total = ops.add(ops.activate(total, layer.activation), hidden)
        return ops.layer_norm(total, layer.norm, weights.eps)

    return ops.rows(add, hidden, *shifted)


def _layer(
    ops: Ops, weights: Weights, layer: bert.Layer, spec: Attention, hidden: Array, batch: Batch
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
    context = ops.attention(q, k, v, spec, batch.layout)
    return ops.rows(after_attention, context, hidden)
