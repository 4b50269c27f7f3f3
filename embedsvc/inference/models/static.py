"""Static embeddings: a vector for each token is looked up, and their mean is the text's vector.

sentence-transformers' StaticEmbedding (static-retrieval-mrl-en-v1) and model2vec (potion) are this.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.last_layer import read_rows
from embedsvc.inference.ops.base import Array, Batch, Inputs, Ops

UNUSED = ()


class Config(msgspec.Struct, frozen=True):
    """No field: the shapes of the tensors say it all."""


@dataclass(frozen=True, slots=True)
class Weights:
    word_embeddings: Array  # (vocabulary, D)


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """The table on the device, from a tensor under either library's name.

    In model2vec's files, tokens may share a row (`mapping`) and have a weight (`weights`).
    """
    words = tensors.take(_name(tensors), *_table(tensors))
    if "mapping" in tensors:
        words = words[_mapping(tensors, len(words))]
    if "weights" in tensors:
        words = words * tensors.take("weights", len(words))[:, None]
    return Weights(ops.table(words))


def rows(tensors: Tensors) -> int:
    """How many tokens there are vectors for. Raises `CheckpointError`."""
    shape = tensors.shape("mapping") if "mapping" in tensors else _table(tensors)
    if not shape:
        raise tensors.error("tensor `mapping` must be a row of whole numbers")
    return shape[0]


def _name(tensors: Tensors) -> str:
    return "embeddings" if "embeddings" in tensors else "embedding.weight"


def _table(tensors: Tensors) -> tuple[int, int]:
    """The shape of the table."""
    name = _name(tensors)
    match tensors.shape(name):
        case (int(count), int(width)) if count and width:
            return count, width
        case shape:
            raise tensors.error(f"tensor `{name}` has shape {shape}, and must be a table")


def _mapping(tensors: Tensors, count: int) -> NDArray[np.integer[Any]]:
    """The row of each token, in a table of `count` rows."""
    mapping = tensors.take_stored("mapping")
    if mapping.ndim != 1 or not np.issubdtype(mapping.dtype, np.integer):
        raise tensors.error("tensor `mapping` must be a row of whole numbers")
    if len(mapping) and not 0 <= mapping.min() <= mapping.max() < count:
        raise tensors.error(f"tensor `mapping` names rows that are not among the {count} there are")
    return mapping


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """The vectors of the tokens that are read (N or B, D)."""
    vectors = ops.embedding(weights.word_embeddings, batch.ids)
    (rows,) = read_rows(ops, batch.read, batch, vectors)
    return rows
