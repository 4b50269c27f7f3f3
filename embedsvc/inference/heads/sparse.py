"""The head of SPLADE: a weight for each token of the vocabulary, by what a masked-LM head makes of
a text (Formal et al., 2021, arXiv:2107.05720 and arXiv:2109.10086).

A token's weight is the largest of its logits over the text, or the sum, each above 0 and in
logarithms. Logits are computed for a block of the vocabulary after the other, of which no more is
kept than that: those of all tokens for the whole vocabulary are never in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.heads import masked_lm
from embedsvc.inference.heads.masked_lm import MaskedLm
from embedsvc.inference.heads.sparse_vector import SparseVector, dump, load, sparse_of
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import Array, Batch, Ops, Read
from embedsvc.texts.item import Item

PER: Literal["text"] = "text"
GIVES = "sparse vectors"
LOGARITHM = Activation("log1p_relu")
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    layers: MaskedLm
    summed: bool
    """Whether a weight is the sum over the text, else the largest."""
    logarithms: int
    """How many times log(1 + x) is taken."""


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The masked-LM head, on the device."""
    sparse = checkpoint.sparse
    assert sparse is not None  # noqa: S101 - `heads_of` has asked
    layers = masked_lm.prepare(ops, tensors, checkpoint)
    return Weights(layers, sparse.pooling == "sum", sparse.logarithms)


def reads(weights: Weights) -> Read:
    """All rows."""
    return "all"


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """A row for each text (B, V): the largest logits, or the means of what is summed."""
    x = masked_lm.transformed(ops, weights.layers, hidden)

    def pooled(logits: Array) -> Array:
        if not weights.summed:  # a logarithm changes nothing of which is the largest
            return ops.pool(logits, batch.layout, ("max",))
        for _ in range(weights.logarithms):
            logits = ops.activate(logits, LOGARITHM)
        return ops.pool(logits, batch.layout, ("mean",))

    blocks = [pooled(ops.linear(x, layer)) for layer in weights.layers.vocabulary]
    return ops.side_by_side(blocks)


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The sparse vector of each item. Raises `EmbeddingFailed`."""
    return [dump(_vector(weights, row, len(item))) for row, item in zip(rows, items, strict=True)]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> list[SparseVector]:
    """The sparse vector of each item."""
    return [load(result) for result in results]


def _vector(weights: Weights, row: Floats, tokens: int) -> SparseVector:
    if not np.isfinite(row).all():
        raise EmbeddingFailed("The model gave no finite weights for this input.")
    indices, values = sparse_of(row)
    if weights.summed:
        return SparseVector(indices, values * np.float32(tokens))
    for _ in range(weights.logarithms):
        values = np.log1p(values)
    return SparseVector(indices, values)
