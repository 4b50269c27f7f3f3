"""The rows of an output that are nearest to a vector."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.dtypes import load
from embedsvc.bulk.outputs.index import Index
from embedsvc.errors import BulkError


class Hit(NamedTuple):
    """A row, and the cosine of its vector and the query."""

    score: float
    row: dict[str, Any]


def search(index: Index, query: NDArray[np.float32], k: int) -> list[Hit]:
    """The k best rows. Of rows that are equally good, the one that comes first in the output wins.

    The output is read once from its beginning to its end, a block at a time. Raises `BulkError` if
    it is damaged.
    """
    query = query / np.float32(np.linalg.norm(query))
    scores, numbers = np.empty(0, np.float32), np.empty(0, np.int64)
    first = 0
    for block in _loaded(index):
        with np.errstate(over="ignore", invalid="ignore"):
            cosines = block @ query / np.maximum(np.linalg.norm(block, axis=1), 1e-30)
        if not np.isfinite(cosines).all():
            wrong = first + int(np.flatnonzero(~np.isfinite(cosines))[0]) + 1
            raise BulkError(f"{index.path}: is damaged: vector {wrong} is not finite")
        scores = np.concatenate([scores, cosines])
        numbers = np.concatenate([numbers, np.arange(first, first + len(block))])
        best = np.argsort(-scores, kind="stable")[:k]
        scores, numbers = scores[best], numbers[best]
        first += len(block)
    if first != index.manifest.rows:
        count = index.manifest.rows
        raise BulkError(f"{index.path}: is damaged: {first:,} vectors, and there were {count:,}")
    rows = index.rows(numbers.tolist())
    return [Hit(score, row) for score, row in zip(scores.tolist(), rows, strict=True)]


def _loaded(index: Index) -> Iterator[NDArray[np.float32]]:
    """The vectors of an output in float32, a block (n, D) at a time."""
    manifest = index.manifest
    for block in index.blocks():
        yield load(block, manifest.dtype, manifest.dimensions)
