"""The head of late chunking: a vector for each span of a text, made in sight of the whole text
(Günther et al., 2024, arXiv:2409.04701).

The hidden states of each span are averaged, and then go through whatever follows the pooling of the
model's own vectors. `texts.late_chunking` finds the spans.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.heads import vector
from embedsvc.inference.ops.base import Array, Batch, Ops, Read
from embedsvc.texts.item import Item

PER: Literal["token"] = "token"
GIVES = "vectors of chunks"
Floats = NDArray[np.float32]

prepare = vector.prepare


def reads(weights: vector.Weights) -> Read:
    """All rows."""
    return "all"


def forward(ops: Ops, weights: vector.Weights, hidden: Array, batch: Batch) -> Array:
    """The hidden states themselves (N, D)."""
    return hidden


def pack(weights: vector.Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The vectors (k, D), float32, of the k spans of each item.

    Raises `EmbeddingFailed`, also for a span that is no part of its text.
    """
    means = [_means(hidden, item) for hidden, item in zip(rows, items, strict=True)]
    vectors = vector.after_pooling(weights, np.concatenate(means))
    cuts = np.cumsum([len(item.spans) for item in items])[:-1]
    return [part.astype("<f4", copy=False).tobytes() for part in np.split(vectors, cuts)]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> Floats:
    """The vectors (sum of k, D) of all spans, those of the first item first."""
    count = sum(len(item.spans) for item in items)
    return np.frombuffer(b"".join(results), "<f4").reshape(count, -1)


def _means(hidden: Floats, item: Item) -> Floats:
    """The means (k, D) of a text's hidden states (L, D) over its spans.

    >>> item = Item(np.array([101, 5, 6, 102], np.int32), spans=((0, 2), (2, 4)))
    >>> _means(np.array([[0], [2], [4], [8]], np.float32), item).tolist()
    [[1.0], [6.0]]
    """
    begins, ends = np.array(item.spans, dtype=np.int64).reshape(-1, 2).T
    if not ((begins >= 0) & (begins < ends) & (ends <= len(item))).all() or not len(begins):
        raise EmbeddingFailed(f"A span is no part of the {len(item)} tokens of its text.")
    return np.stack([hidden[first:stop].mean(axis=0) for first, stop in item.spans])
