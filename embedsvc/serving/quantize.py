"""Vectors in fewer bits: int8, uint8, and one bit for each component.

int8 holds 127 x / max|x|, rounded. Every vector has its own scale, so compare them by cosine.
Vectors that a model gives as whole numbers for int8 stay as they are. uint8 is that plus 128. A bit
is 1 where the component is greater than 0. Eight bits make a byte, the first component in the
highest bit: `ubinary` is that byte, `binary` is that byte less 128. Compare those by their Hamming
distance.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.texts.requests import ComponentType


def quantize(vectors: NDArray[np.float32], dtype: ComponentType) -> NDArray[Any]:
    """Vectors (n, D) in a type, (n, D); of bits (n, D / 8), rounded up.

    >>> vectors = np.array([[0.6, -0.8, 0.0]], np.float32)
    >>> quantize(vectors, "int8").tolist()
    [[95, -127, 0]]
    >>> quantize(np.array([[3, -64]], np.float32), "int8").tolist()
    [[3, -64]]
    >>> quantize(vectors, "uint8").tolist()
    [[223, 1, 128]]
    >>> quantize(vectors, "ubinary").tolist()
    [[128]]
    """
    if dtype == "float":
        return vectors.astype("<f4", copy=False)
    if dtype in ("binary", "ubinary"):
        packed = np.packbits(vectors > 0, axis=1)
        return packed if dtype == "ubinary" else (packed ^ 0x80).view(np.int8)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    whole = (largest > 1) & (largest <= 127) & (vectors == np.rint(vectors)).all(1, keepdims=True)
    scaled = np.rint(vectors * np.where(whole, np.float32(1), 127 / largest))
    return scaled.astype(np.int8) if dtype == "int8" else (scaled + 128).astype(np.uint8)
