"""Layers as operations take them: weights in a backend's own form, and what attention does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any  # numpy.ndarray or mlx.core.array, never mixed


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer in its backend's own form: `Ops.linear_layer` makes it for `Ops.linear`."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and shift of a layer norm, (D,) each."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True, slots=True)
class Experts:
    """The layers of E experts in their backend's own form, made by `Ops.experts_layer`."""

    up: Array
    down: Array


@dataclass(frozen=True, slots=True, eq=False)
class Relative:
    """Scores by how far a key is from a query, and by what they are (DeBERTa's).

    b = buckets[j - i + R - 1] is for query i and key j. Added to q_i * k_j before the scale are
    q_i * keys[b] and k_j * queries[b] of their head, where those are given.
    """

    buckets: NDArray[np.int32]
    """(2 R - 1,), on the host. No text may be longer than R."""
    keys: Array | None
    """(heads, buckets, size)."""
    queries: Array | None
    """(heads, buckets, size)."""


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What one kind of attention layer does.

    Query i sees key j of its own text where both `causal` and `window` allow it.
    """

    heads: int
    kv_heads: int
    """Heads of keys and values; heads / kv_heads neighbouring heads of queries share one."""
    scale: float = 1.0
    causal: bool = False
    """If so, query i sees key j only where j <= i."""
    window: int | None = None
    """If given, query i sees key j only where |i - j| <= window."""
    bias: Array | None = None
    """(heads, 2 R - 1): [:, j - i + R - 1] is added to the scores. No text may be longer than R."""
    relative: Relative | None = None
