"""The types vectors are stored in, and how they are compared."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.serving.quantize import quantize

Stored = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
STORED: tuple[Stored, ...] = get_args(Stored)


def store(vectors: NDArray[np.float32], dtype: Stored) -> NDArray[Any]:
    """Vectors (n, D) in that type; see `quantize` for those of fewer bits."""
    if dtype == "float32":
        return vectors.astype("<f4", copy=False)
    if dtype == "float16":
        return vectors.astype("<f2")
    return quantize(vectors, dtype)


def load(stored: NDArray[Any], dtype: Stored, dimensions: int) -> NDArray[np.float32]:
    """Vectors (n, D) with the directions of those that were stored."""
    if dtype == "uint8":
        return stored.astype(np.float32) - np.float32(128)
    if dtype in ("binary", "ubinary"):
        packed: NDArray[np.uint8] = stored.astype(np.uint8)
        if dtype == "binary":
            packed ^= np.uint8(0x80)
        bits = np.unpackbits(packed, axis=1)
        return bits[:, :dimensions] * np.float32(2) - np.float32(1)
    return stored.astype(np.float32)
