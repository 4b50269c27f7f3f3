"""Texts packed on NumPy and for the kernels: end to end, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.table_limits import IndexRange
from embedsvc.texts.item import TokenIds


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where each text lies in the rows."""

    bounds: NDArray[np.intp]  # (B + 1,): text b is rows bounds[b]:bounds[b + 1]
    runs: tuple[tuple[int, int, int], ...]  # (first row, texts, length) of neighbours of one length


def lay_out(texts: Sequence[TokenIds], types: Sequence[TokenIds] | None) -> Batch:
    """The batch of texts that were checked, with the types of their tokens if there are any.

    >>> batch = lay_out([np.array([7, 8], np.int32), np.array([9], np.int32)], None)
    >>> batch.ids.tolist(), batch.positions.tolist(), batch.layout.bounds.tolist()
    ([7, 8, 9], [0, 1, 0], [0, 2, 3])
    """
    joined_types = None if types is None else np.concatenate(types)
    lengths = [len(text) for text in texts]
    if len(texts) == 1:  # the fastest way for the commonest batch
        (ids,), (length,) = texts, lengths
        layout = PackedLayout(np.array([0, length]), ((0, 1, length),))
        positions = np.arange(length, dtype=np.int32)
        if not ids.flags.carray:  # the kernels read contiguous and aligned numbers
            ids = ids.copy()
        return Batch(ids, positions, layout, joined_types)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    layout = PackedLayout(bounds, _runs(lengths))
    return Batch(np.concatenate(texts), positions, layout, joined_types)


def range_of(batch: Batch) -> IndexRange:
    """The indices that the batch looks up."""
    longest = max(length for _, _, length in batch.layout.runs)
    types = (0, 0) if batch.types is None else (int(batch.types.min()), int(batch.types.max()))
    return IndexRange(int(batch.ids.min()), int(batch.ids.max()), longest, types)


def _runs(lengths: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Neighbours of equal length as (first row, texts, length).

    >>> _runs([2, 2, 5])
    ((0, 2, 2), (4, 1, 5))
    """
    runs: list[tuple[int, int, int]] = []
    row = 0
    for length, same in groupby(lengths):
        count = sum(1 for _ in same)
        runs.append((row, count, length))
        row += count * length
    return tuple(runs)
