"""The head of late interaction (ColBERT; Khattab and Zaharia, 2020, arXiv:2004.12832): a vector for
each token of a text.

The projection is computed on the device, and what follows it on the host in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.steps import Dense
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.heads.steps import RowStep, check_finite, dense_tensors, load_module
from embedsvc.inference.ops.base import Array, Batch, Linear, Ops, Read
from embedsvc.texts.item import Item

PER: Literal["token"] = "token"
GIVES = "vectors of tokens"
Floats = NDArray[np.float32]
TokenVectors = NDArray[np.floating[Any]]
"""The vectors (n, d) of those tokens of a text that have one, in their order."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A Dense module on the device."""

    layer: Linear
    residual: Linear | bool
    """The layer whose result is added; true: what goes in is added itself."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What follows the hidden states, in this order."""

    projections: tuple[Projection, ...]
    steps: tuple[RowStep, ...]
    """The modules after those, as functions of vectors (n, d)."""
    normalize: bool


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The modules that are listed, the first linear ones on the device."""
    model, steps = checkpoint.card.id, checkpoint.steps
    linear: list[Dense] = []
    for step in steps:
        if not isinstance(step, Dense) or step.activation != "Identity":
            break
        linear.append(step)
    return Weights(
        tuple(_projection(ops, model, dense) for dense in linear),
        tuple(load_module(model, step) for step in steps[len(linear) :]),
        checkpoint.normalize,
    )


def reads(weights: Weights) -> Read:
    """All rows."""
    return "all"


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """A row for each token (N, d)."""

    def project(x: Array) -> Array:
        for projection in weights.projections:
            out = ops.linear(x, projection.layer)
            if isinstance(projection.residual, Linear):
                out = ops.add(out, ops.linear(x, projection.residual))
            elif projection.residual:
                out = ops.add(out, x)
            x = out
        return x

    return ops.rows(project, hidden) if weights.projections else hidden


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The vectors (n, d) of each item's n tokens that have one, float32, or float16 if it is to be
    `half`. Raises `EmbeddingFailed`, also if float16 has no such large numbers."""
    kept = [
        own if item.kept is None else own[item.kept] for own, item in zip(rows, items, strict=True)
    ]
    vectors = np.concatenate(kept)
    for step in weights.steps:
        vectors = step(vectors)
    vectors = check_finite(vectors, normalize=weights.normalize)
    parts = np.split(vectors, np.cumsum([len(own) for own in kept])[:-1])
    return [_narrowed(part, item).tobytes() for part, item in zip(parts, items, strict=True)]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> list[TokenVectors]:
    """The vectors (n, d) of each item."""
    return [
        np.frombuffer(result, _dtype(item)).reshape(item.count_kept(), -1)
        for result, item in zip(results, items, strict=True)
    ]


def _narrowed(part: Floats, item: Item) -> TokenVectors:
    with np.errstate(over="ignore"):
        narrow = part.astype(_dtype(item), copy=False)
    if not np.isfinite(narrow).all():
        raise EmbeddingFailed("The model gave a vector with numbers too large for float16.")
    return narrow


def _dtype(item: Item) -> "np.dtype[np.floating[Any]]":
    return np.dtype("<f2" if item.half else "<f4")


def _projection(ops: Ops, model: str, dense: Dense) -> Projection:
    weight, bias, residual = dense_tensors(Tensors(model, dense.folder), dense)
    added = dense.residual if residual is None else ops.linear_layer(residual, None)
    return Projection(ops.linear_layer(weight, bias), added)
