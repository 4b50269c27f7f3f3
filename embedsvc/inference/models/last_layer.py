"""The last layer of a pass, of which many heads read one row of each text.

All that this row needs of the others are their keys and values. So where one row is read, queries
are taken of it alone, and what follows attention is computed for it alone.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from embedsvc.inference.ops.base import Array, Batch, Ops, Read

L = TypeVar("L")


def with_reads(layers: Sequence[L], read: Read) -> Iterator[tuple[L, Read]]:
    """Each layer, and the rows that are read of it: all, but of the last one those of `read`.

    >>> list(with_reads(["first", "second", "third"], "cls"))
    [('first', 'all'), ('second', 'all'), ('third', 'cls')]
    """
    for layer in layers[:-1]:
        yield layer, "all"
    yield layers[-1], read


def read_rows(ops: Ops, read: Read, batch: Batch, *arrays: Array) -> tuple[Array, ...]:
    """The rows of arrays (N, n) that are read: (N, n), or (B, n) where it is one of each text."""
    if read == "all":
        return arrays
    return tuple(ops.pool(array, batch.layout, [read]) for array in arrays)
