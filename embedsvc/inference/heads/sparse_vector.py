"""A sparse vector: the tokens of the vocabulary that count for a text, and how much each does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SparseVector(NamedTuple):
    """What is not listed is 0."""

    indices: NDArray[np.int32]  # (k,), ascending: ids of tokens
    values: NDArray[np.float32]  # (k,), above 0


def sparse_of(weights: NDArray[np.float32]) -> SparseVector:
    """The weights (V,) that are above 0.

    >>> sparse_of(np.array([0, 2, -1, 0.5], np.float32)).indices.tolist()
    [1, 3]
    """
    indices = np.flatnonzero(weights > 0).astype(np.int32)
    return SparseVector(indices, weights[indices])


def largest_by_id(ids: NDArray[np.int32], weights: NDArray[np.float32]) -> SparseVector:
    """The largest weight (n,) of each id (n,), where that is above 0.

    >>> vector = largest_by_id(np.array([7, 3, 7], np.int32), np.array([1, 0, 2], np.float32))
    >>> vector.indices.tolist(), vector.values.tolist()
    ([7], [2.0])
    """
    order = np.lexsort((weights, ids))
    ids, weights = ids[order], weights[order]
    last = np.append(ids[1:] != ids[:-1], np.ones(min(len(ids), 1), bool))
    kept = last & (weights > 0)
    return SparseVector(ids[kept].astype(np.int32, copy=False), weights[kept])


def merged(parts: Sequence[SparseVector]) -> SparseVector:
    """One vector of those of a text's parts: of each token the largest weight."""
    if len(parts) == 1:
        return parts[0]
    indices, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return largest_by_id(indices, values)


def pruned(vector: SparseVector, most: int | None, least: float) -> SparseVector:
    """The vector with its `most` largest weights, those of `least` or more.

    >>> weights = np.array([0.5, 3, 1, 2], np.float32)
    >>> pruned(sparse_of(weights), 2, 0).indices.tolist(), pruned(sparse_of(weights), None, 1)[1]
    ([1, 3], array([3., 1., 2.], dtype=float32))
    """
    indices, values = vector
    if least > 0:
        kept = values >= np.float32(least)
        indices, values = indices[kept], values[kept]
    if most is not None and len(values) > most:
        last = np.partition(values, len(values) - most)[len(values) - most]
        above, equal = np.flatnonzero(values > last), np.flatnonzero(values == last)
        # Of equal weights the lowest ids are kept.
        kept = np.sort(np.concatenate((above, equal[: most - len(above)])))
        indices, values = indices[kept], values[kept]
    return SparseVector(indices, values)


def dump(vector: SparseVector) -> bytes:
    """The indices, and then the values, as int32 and float32.

    >>> load(dump(SparseVector(np.array([4], np.int32), np.array([2], np.float32)))).values
    array([2.], dtype=float32)
    """
    indices, values = vector
    return indices.astype("<i4", copy=False).tobytes() + values.astype("<f4", copy=False).tobytes()


def load(result: bytes) -> SparseVector:
    """The vector that was dumped."""
    count = len(result) // 8
    return SparseVector(
        np.frombuffer(result, "<i4", count), np.frombuffer(result, "<f4", count, 4 * count)
    )
