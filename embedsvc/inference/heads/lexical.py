"""The head of BGE-M3's lexical weights: a weight for each token of a text (Chen et al., 2024,
arXiv:2402.03216).

A linear layer gives it, of which no less than 0 counts. A token that comes several times has its
largest weight, and special tokens have none, as in FlagEmbedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.files import Files, as_object
from embedsvc.checkpoints.sparse import LEXICAL_FILE
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.checkpoints.tokenizer_files import read_tokenizer
from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.heads import sparse
from embedsvc.inference.heads.sparse_vector import SparseVector, dump, largest_by_id
from embedsvc.inference.ops.base import Array, Batch, Linear, Ops, Read
from embedsvc.texts.item import Item

PER: Literal["token"] = "token"
GIVES = sparse.GIVES
Floats = NDArray[np.float32]
WITHOUT = ("cls_token", "eos_token", "pad_token", "unk_token")
"""The special tokens that have no weight."""

unpack = sparse.unpack


@dataclass(frozen=True, slots=True)
class Weights:
    layer: Linear
    without: NDArray[np.int32]
    """Ids of tokens that have no weight."""


def prepare(ops: Ops, tensors: Tensors, checkpoint: Checkpoint) -> Weights:
    """The layer, from a file of its own."""
    own = Tensors(checkpoint.card.id, checkpoint.folder, file=LEXICAL_FILE)
    width = checkpoint.config["hidden_size"]
    layer = ops.linear_layer(own.take("weight", 1, width), own.take("bias", 1))
    own.refuse_left_over(())
    return Weights(layer, _without(checkpoint))


def reads(weights: Weights) -> Read:
    """All rows."""
    return "all"


def forward(ops: Ops, weights: Weights, hidden: Array, batch: Batch) -> Array:
    """A weight for each token (N, 1), which may be below 0."""
    return ops.linear(hidden, weights.layer)


def pack(weights: Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The sparse vector of each item. Raises `EmbeddingFailed`."""
    return [dump(_vector(weights, own, item)) for own, item in zip(rows, items, strict=True)]


def _without(checkpoint: Checkpoint) -> NDArray[np.int32]:
    """The ids of those special tokens that the tokeniser's files name."""
    files = Files(checkpoint.card.id, checkpoint.folder)
    stated = files.read("special_tokens_map.json") | files.read("tokenizer_config.json")
    tokenizer = read_tokenizer(checkpoint.card.id, checkpoint.folder)
    ids: set[int] = set()
    for key in WITHOUT:
        token = stated.get(key)
        content = (as_object(token) or {}).get("content", token)
        found = tokenizer.token_to_id(content) if isinstance(content, str) else None
        if found is not None:
            ids.add(found)
    return np.array(sorted(ids), np.int32)


def _vector(weights: Weights, rows: Floats, item: Item) -> SparseVector:
    if not np.isfinite(rows).all():
        raise EmbeddingFailed("The model gave no finite weights for this input.")
    kept = ~np.isin(item.ids, weights.without)
    return largest_by_id(item.ids[kept], rows[kept, 0])
