"""Texts packed on NumPy and for the kernels: end to end, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Batch
from embedsvc.inference.ops.table_limits import IndexRange
from embedsvc.texts.item import TokenIds


class Run(NamedTuple):
    """Neighbours of one length, of which as many tokens are seen."""

    row: int  # the first of the first text
    text: int  # the number of the first text
    texts: int
    length: int
    seen: int


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where each text lies in the rows."""

    bounds: NDArray[np.intp]  # (B + 1,): text b is rows bounds[b]:bounds[b + 1]
    runs: tuple[Run, ...]
    seen: NDArray[np.int64] | None = None  # (B,): so many tokens are attended to; None: all


def lay_out(
    texts: Sequence[TokenIds], types: Sequence[TokenIds] | None, seen: Sequence[int] | None = None
) -> Batch:
    """The batch of texts that were checked, with the types of their tokens if there are any.

    >>> batch = lay_out([np.array([7, 8], np.int32), np.array([9], np.int32)], None)
    >>> batch.ids.tolist(), batch.positions.tolist(), batch.layout.bounds.tolist()
    ([7, 8, 9], [0, 1, 0], [0, 2, 3])
    """
    joined_types = None if types is None else np.concatenate(types)
    lengths = [len(text) for text in texts]
    if len(texts) == 1:  # the fastest way for the commonest batch
        (ids,), (length,) = texts, lengths
        counts = lengths if seen is None else seen
        run = Run(0, 0, 1, length, counts[0])
        layout = PackedLayout(np.array([0, length]), (run,), _array(seen))
        positions = np.arange(length, dtype=np.int32)
        if not ids.flags.carray:  # the kernels read contiguous and aligned numbers
            ids = ids.copy()
        return Batch(ids, positions, layout, joined_types)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    layout = PackedLayout(bounds, _runs(lengths, lengths if seen is None else seen), _array(seen))
    return Batch(np.concatenate(texts), positions, layout, joined_types)


def range_of(batch: Batch) -> IndexRange:
    """The indices that the batch looks up."""
    longest = max(run.length for run in batch.layout.runs)
    types = (0, 0) if batch.types is None else (int(batch.types.min()), int(batch.types.max()))
    return IndexRange(int(batch.ids.min()), int(batch.ids.max()), longest, types)


def _array(seen: Sequence[int] | None) -> NDArray[np.int64] | None:
    return None if seen is None else np.array(seen, np.int64)


def _runs(lengths: Sequence[int], seen: Sequence[int]) -> tuple[Run, ...]:
    """The neighbours of equal length, of which as many tokens are seen.

    >>> _runs([2, 2, 5], [2, 2, 4])[1]
    Run(row=4, text=2, texts=1, length=5, seen=4)
    """
    runs: list[Run] = []
    row = text = 0
    for (length, keys), same in groupby(zip(lengths, seen, strict=True)):
        count = sum(1 for _ in same)
        runs.append(Run(row, text, count, length, keys))
        row, text = row + count * length, text + count
    return tuple(runs)
