"""From hidden states to vectors: pooling on the device, the last steps in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.cards import Pooling
from embedsvc.errors import EmbeddingFailed
from embedsvc.ops.base import Array, Ops

POOL: dict[Pooling, Callable[[Ops, Array, Any], Array]] = {
    "mean": lambda ops, hidden, layout: ops.segment_mean(hidden, layout),
    "cls": lambda ops, hidden, layout: ops.segment_first(hidden, layout),
    "last_token": lambda ops, hidden, layout: ops.segment_last(hidden, layout),
    "max": lambda ops, hidden, layout: ops.segment_max(hidden, layout),
}
"""Hidden states (N, D) and a layout to one row per text (B, D)."""


def finish(pooled: NDArray[np.float32], *, normalize: bool) -> NDArray[np.float32]:
    """Vectors (B, D) that are finite and not zero, of unit length if `normalize`.

    Raises `EmbeddingFailed` if a row cannot be that.
    """
    length = np.linalg.norm(pooled, axis=1, keepdims=True)
    if not np.isfinite(length).all() or not length.all():
        raise EmbeddingFailed("The model gave no finite, non-zero vector for this input.")
    return pooled / length if normalize else pooled
