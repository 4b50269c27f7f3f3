"""The types in which vectors are stored."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.serving.quantize import quantize

Stored = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
STORED: tuple[Stored, ...] = get_args(Stored)


def store(vectors: NDArray[np.float32], dtype: Stored) -> NDArray[Any]:
    """Vectors (n, D) in that type. For int8, uint8 and bits, see `quantize`.

    >>> store(np.array([[0.5, -1.0]], np.float32), "int8").tolist()
    [[64, -127]]
    """
    if dtype == "float32":
        return vectors.astype("<f4", copy=False)
    if dtype == "float16":
        return vectors.astype("<f2")
    return quantize(vectors, dtype)


def load(stored: NDArray[Any], dtype: Stored, dimensions: int) -> NDArray[np.float32]:
    """Vectors (n, D) with the directions of those that were stored; their lengths may differ.

    >>> load(np.array([[64, -127]], np.int8), "int8", 2).tolist()
    [[64.0, -127.0]]
    >>> load(np.array([[0b10100000]], np.uint8), "ubinary", 3).tolist()
    [[1.0, -1.0, 1.0]]
    """
    if dtype == "uint8":
        return stored.astype(np.float32) - np.float32(128)
    if dtype in ("binary", "ubinary"):
        packed: NDArray[np.uint8] = stored.astype(np.uint8)
        if dtype == "binary":
            packed ^= np.uint8(0x80)
        bits = np.unpackbits(packed, axis=1)
        return bits[:, :dimensions] * np.float32(2) - np.float32(1)
    return stored.astype(np.float32)
