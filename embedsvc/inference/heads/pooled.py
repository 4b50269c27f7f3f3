"""The rows that a pooling reads, and one row for each text made of them."""

from collections.abc import Sequence

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.ops.base import Array, Batch, Ops, Read


def read_by(poolings: Sequence[Pooling]) -> Read:
    """The rows of each text that poolings read.

    >>> read_by(["cls"]), read_by(["cls", "mean"]), read_by(["max"])
    ('cls', 'all', 'all')
    """
    match poolings:
        case ["cls" | "last_token" as row]:
            return row
        case _:
            return "all"


def pool(ops: Ops, hidden: Array, batch: Batch, poolings: Sequence[Pooling]) -> Array:
    """The poolings of each text's rows side by side (B, D * poolings), from hidden states (N, D);
    or those of the one row that was read of each text, as they are."""
    return ops.pool(hidden, batch.layout, poolings) if batch.read == "all" else hidden
