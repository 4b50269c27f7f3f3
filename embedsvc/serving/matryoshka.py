"""Shorter vectors: the first components of a vector whose model was trained for that.

(Kusupati et al., 2022, arXiv:2205.13147.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import BadRequest
from embedsvc.inference.heads.steps import check_finite


def check_dimensions(
    dimensions: int, native: int, sizes: Sequence[int], field: str = "dimensions"
) -> None:  # fmt: skip
    """Raise `BadRequest` unless vectors of `native` components come with so many `dimensions`.

    `sizes` are those that the model was trained for, `field` is what the request calls them.
    """
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


def shorten(
    vectors: NDArray[np.float32], dimensions: int, *, layer_norm: bool
) -> NDArray[np.float32]:  # fmt: skip
    """The first `dimensions` components of vectors (n, D), scaled to length 1 again.

    With `layer_norm`, which nomic's models need, each vector's mean is subtracted first. (A layer
    norm also divides by the deviation, which makes no difference to a vector of length 1.)

    Raises `EmbeddingFailed` if these components are all zero.

    >>> shorten(np.array([[3, 4, 12]]) / 13, 2, layer_norm=False).round(2).tolist()
    [[0.6, 0.8]]
    """
    if vectors.shape[1] == dimensions:
        return vectors
    if layer_norm:
        vectors = vectors - vectors.mean(axis=1, keepdims=True)
    return check_finite(vectors[:, :dimensions], normalize=True)
