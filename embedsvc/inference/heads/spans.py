"""The head of late chunking: a vector for each span of a text, made in sight of the whole text.

The means of the spans' hidden states go through whatever follows the pooling of the model's own
vectors (Günther et al., 2024, arXiv:2409.04701); see `texts.late_chunking` for what the spans are.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.heads import vector
from embedsvc.inference.ops.base import Array, Batch, Ops
from embedsvc.texts.item import Item

PER: Literal["token"] = "token"
GIVES = "vectors of chunks"
Floats = NDArray[np.float32]

prepare = vector.prepare


def forward(ops: Ops, weights: vector.Weights, hidden: Array, batch: Batch) -> Array:
    """The hidden states themselves (N, D)."""
    return hidden


def pack(weights: vector.Weights, rows: Sequence[Floats], items: Sequence[Item]) -> list[bytes]:
    """The vectors of the spans of each item (k, D), float32.

    Raises `EmbeddingFailed`, also for spans that are no part of their text.
    """
    means = [_means(hidden, item) for hidden, item in zip(rows, items, strict=True)]
    vectors = vector.after_pooling(weights, np.concatenate(means))
    cuts = np.cumsum([len(item.spans) for item in items])[:-1]
    return [part.astype("<f4", copy=False).tobytes() for part in np.split(vectors, cuts)]


def unpack(results: Sequence[bytes], items: Sequence[Item]) -> Floats:
    """The vectors of all spans (sum of k, D), those of the first item first."""
    count = sum(len(item.spans) for item in items)
    return np.frombuffer(b"".join(results), "<f4").reshape(count, -1)


def _means(hidden: Floats, item: Item) -> Floats:
    """Means of the spans of one text's hidden states (L, D): (k, D)."""
    begins, ends = np.array(item.spans, dtype=np.int64).reshape(-1, 2).T
    if not ((begins >= 0) & (begins < ends) & (ends <= len(item))).all() or not len(begins):
        raise EmbeddingFailed(f"A span is no part of the {len(item)} tokens of its text.")
    return np.stack([hidden[first:stop].mean(axis=0) for first, stop in item.spans])
