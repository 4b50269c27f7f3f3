"""MaxSim on MLX: some documents at a time, padded to one length."""

# MLX's stubs leave *args untyped, in eval among others.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Floats

NUMBERS = 1 << 24
"""Products of tokens, and numbers of documents, that are in memory at once; one document may have
more."""


def score_documents(query: Floats, documents: Sequence[NDArray[np.float16]]) -> Floats:
    """`Ops.maxsim`, on the one thread of MLX."""
    scores = np.empty(len(documents), np.float32)
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    on_device = mx.array(query)
    while order:
        longest = len(documents[order[-1]])
        count = max(1, NUMBERS // (longest * max(query.shape)))
        some = order[-count:]
        del order[-count:]
        scores[some] = _scores(on_device, [documents[i] for i in some], longest)
    return scores


def _scores(query: mx.array, documents: Sequence[NDArray[np.float16]], longest: int) -> Floats:
    """The scores of documents that fit into memory together."""
    padded = np.zeros((len(documents), longest, query.shape[1]), np.float16)
    lengths = np.array([len(document) for document in documents], np.int32)
    for row, document in zip(padded, documents, strict=True):
        row[: len(document)] = document
    products = mx.array(padded).astype(mx.float32) @ query.T  # (B, L, n)
    there = mx.arange(longest)[None, :, None] < mx.array(lengths)[:, None, None]
    best = mx.where(there, products, -float("inf")).max(axis=1)
    return np.array(best.sum(axis=1), dtype=np.float32)
