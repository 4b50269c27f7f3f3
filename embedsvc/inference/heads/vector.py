"""The head of an embedding model: one vector for each text.

Hidden states are pooled on the device. The modules that sentence-transformers has after pooling,
and the normalisation, follow on the host in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.heads.pooled import pool, read_by
from embedsvc.inference.heads.steps import RowStep, check_finite, load_module
from embedsvc.inference.ops.base import Array, Batch, Ops, Read
from embedsvc.texts.item import Item

PER: Literal["text"] = "text"
GIVES = "vectors"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """What follows the hidden states, in this order."""

    poolings: tuple[Pooling, ...]
    """Their results are put side by side if there are several."""
    steps: tuple[RowStep, ...]
    """The modules after the pooling, as functions of vectors (B, D)."""
    normalize: bool


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The modules after pooling."""
    steps = tuple(load_module(checkpoint.card.id, step) for step in checkpoint.steps)
    return Weights(checkpoint.pooling, steps, checkpoint.normalize)


def reads(weights: Weights) -> Read:
    """The rows of each text that are pooled."""
    return read_by(weights.poolings)


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """One row for each text: the poolings of its rows side by side (B, D * poolings)."""
    return pool(ops, hidden, batch, weights.poolings)


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The vector of each item (D,), float32. Raises `EmbeddingFailed`."""
    vectors = after_pooling(weights, np.asarray(rows)).astype("<f4", copy=False)
    return [vector.tobytes() for vector in vectors]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> Floats:
    """Vectors (n, D), in an array that the caller may change."""
    rows = bytearray().join(results)  # many times faster than np.stack
    return np.frombuffer(rows, "<f4").reshape(len(results), -1)


def after_pooling(weights: Weights, pooled: Floats) -> Floats:
    """Vectors from pooled rows (n, D): through the modules that follow, and normalised if asked
    for.

    Raises `EmbeddingFailed` if one is not finite, or is zero.
    """
    for step in weights.steps:
        pooled = step(pooled)
    return check_finite(pooled, normalize=weights.normalize)
