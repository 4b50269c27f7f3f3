"""Pooling on NumPy: a row for each text, from rows that lie end to end."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.ops.base import Floats

Bounds = NDArray[np.integer[Any]]
"""(B + 1,): text b is rows bounds[b]:bounds[b + 1]."""


def pool(hidden: Floats, bounds: Bounds, pooling: Pooling) -> Floats:
    """Each text's rows (N, D) as one: (B, D).

    >>> hidden = np.array([[1.0], [3.0], [7.0]], np.float32)
    >>> pool(hidden, np.array([0, 2, 3]), "mean").tolist()
    [[2.0], [7.0]]
    """
    begins, lengths = bounds[:-1], np.diff(bounds)
    match pooling:
        case "cls":
            return hidden[begins]
        case "last_token":
            return hidden[bounds[1:] - 1]
        case "max":
            return np.maximum.reduceat(hidden, begins, axis=0)
        case "mean":
            divisors = lengths
        case "mean_sqrt_len":
            divisors = np.sqrt(lengths)
        case "weighted_mean":
            weights = np.concatenate([np.arange(1, n + 1, dtype=np.float32) for n in lengths])
            hidden = hidden * weights[:, None]
            divisors = lengths * (lengths + 1) / 2
    sums: Floats = np.add.reduceat(hidden, begins, axis=0)
    sums /= divisors.astype(np.float32)[:, None]
    return sums
