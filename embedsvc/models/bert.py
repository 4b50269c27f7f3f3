"""BERT: learned positions, layer norm after each residual (Devlin et al., 2018, arXiv:1810.04805).

MiniLM, BGE, E5, GTE (v1) and Arctic (v1) are this architecture.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from embedsvc.ops.base import Array, Attention, Batch, Linear, Norm, Ops, columns
from embedsvc.tensors import Tensors

UNUSED = ("pooler.", "embeddings.position_ids")
"""Tensors that checkpoints carry and the hidden states do not need."""


class Config(msgspec.Struct, frozen=True):
    """What the pass reads of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: Literal["gelu"]
    position_embedding_type: Literal["absolute"] = "absolute"


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear  # D -> 3 D
    attention_out: Linear  # D -> D
    attention_norm: Norm
    up: Linear  # D -> intermediate
    down: Linear  # intermediate -> D
    norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    words: Array  # (vocabulary, D)
    positions: Array  # (positions, D)
    norm: Norm
    attention: Attention
    layers: tuple[Layer, ...]


def prepare(ops: Ops, tensors: Tensors, config: Config) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        weight = tensors.take(f"{name}.weight", outputs, inputs)
        return ops.linear_layer(weight, tensors.take(f"{name}.bias", outputs))

    def norm(name: str) -> Norm:
        weight, bias = (tensors.take(f"{name}.{part}", width) for part in ("weight", "bias"))
        return Norm(ops.array(weight), ops.array(bias))

    def qkv(name: str) -> Linear:
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([tensors.take(f"{part}.weight", width, width) for part in parts])
        bias = np.concatenate([tensors.take(f"{part}.bias", width) for part in parts])
        return ops.linear_layer(weight, bias)

    def layer(name: str) -> Layer:
        return Layer(
            qkv=qkv(f"{name}.attention.self"),
            attention_out=linear(f"{name}.attention.output.dense", width, width),
            attention_norm=norm(f"{name}.attention.output.LayerNorm"),
            up=linear(f"{name}.intermediate.dense", width, inner),
            down=linear(f"{name}.output.dense", inner, width),
            norm=norm(f"{name}.output.LayerNorm"),
        )

    words = tensors.take("embeddings.word_embeddings.weight", config.vocab_size, width)
    positions = tensors.take(
        "embeddings.position_embeddings.weight", config.max_position_embeddings, width
    )
    # Every token of an embedded text is of type 0: one table instead of two.
    types = tensors.take("embeddings.token_type_embeddings.weight", config.type_vocab_size, width)
    weights = Weights(
        words=ops.array(words),
        positions=ops.array(positions + types[0]),
        norm=norm("embeddings.LayerNorm"),
        attention=Attention(heads, heads, scale=(width // heads) ** -0.5),
        layers=tuple(layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers)),
    )
    tensors.finish(UNUSED)
    return weights


def forward(ops: Ops, weights: Weights, config: Config, batch: Batch) -> Array:
    """Hidden states (N, D) of the last layer."""

    def embed(ids: Array, positions: Array) -> Array:
        hidden = ops.embedding(weights.words, ids)
        hidden = ops.add(hidden, ops.embedding(weights.positions, positions))
        return ops.layer_norm(hidden, weights.norm, config.layer_norm_eps)

    hidden = ops.rows(embed, batch.ids, batch.positions)
    for layer in weights.layers:
        hidden = _layer(ops, layer, weights.attention, config, hidden, batch.layout)
    return hidden


def _layer(
    ops: Ops, layer: Layer, attention: Attention, config: Config, hidden: Array, layout: Any
) -> Array:
    eps, width = config.layer_norm_eps, config.hidden_size

    def project(hidden: Array) -> tuple[Array, ...]:
        return columns(ops.linear(hidden, layer.qkv), width, width, width)

    def finish(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        hidden = ops.layer_norm(hidden, layer.attention_norm, eps)
        inner = ops.gelu(ops.linear(hidden, layer.up))
        hidden = ops.add(ops.linear(inner, layer.down), hidden)
        return ops.layer_norm(hidden, layer.norm, eps)

    q, k, v = ops.rows(project, hidden)
    context = ops.attention(q, k, v, attention, layout)
    return ops.rows(finish, context, hidden)
