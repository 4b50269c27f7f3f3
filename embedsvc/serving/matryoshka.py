"""Shorter vectors: the first components of a vector whose model was trained for that.

(Kusupati et al., 2022, arXiv:2205.13147.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import BadRequest


def check(
    dimensions: int, native: int, sizes: Sequence[int], field: str = "dimensions"
) -> None:  # fmt: skip
    """Raises `BadRequest` unless vectors of `native` components come in that size."""
    if dimensions == native or dimensions in sizes:
        return
    wrong = f"Invalid value for '{field}' = {dimensions}."
    if dimensions < 1:
        raise BadRequest(f"{wrong} Must be greater than 0.")
    if not sizes:
        raise BadRequest(
            f"This model does not support specifying dimensions. Its vectors have {native}."
        )
    most = f" Must be less than or equal to {native}." if dimensions > native else ""
    raise BadRequest(f"{wrong}{most} Supported values: {sorted({*sizes, native})}.")


def cut(
    vectors: NDArray[np.float32], dimensions: int, *, layer_norm: bool
) -> NDArray[np.float32]:  # fmt: skip
    """The first `dimensions` of vectors (n, D), of unit length.

    With `layer_norm`, as nomic's models need it, each vector's mean is taken off first; its scale
    makes no difference to what has unit length in the end.
    """
    if vectors.shape[1] == dimensions:
        return vectors
    if layer_norm:
        vectors = vectors - vectors.mean(axis=1, keepdims=True)
    vectors = vectors[:, :dimensions]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
