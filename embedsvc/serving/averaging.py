"""The vector of a text that was embedded in parts, since it is longer than its model takes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.heads.steps import check_finite


def average(
    vectors: NDArray[np.float32], lengths: Sequence[int], parts: Sequence[int], *, normalize: bool
) -> NDArray[np.float32]:
    """One vector for each text: the mean of its parts' vectors (n, D), weighted by their lengths.

    `parts` is how many of the vectors are each text's. Raises `EmbeddingFailed` if a mean is
    zero, since its parts cancel each other out.

    >>> vectors = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    >>> average(vectors, lengths=[30, 10, 20], parts=[2, 1], normalize=False).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    weights = np.asarray(lengths, np.float32)[:, None]
    starts = np.cumsum([0, *parts[:-1]])
    means: NDArray[np.float32] = np.add.reduceat(vectors * weights, starts, axis=0)
    means /= np.add.reduceat(weights, starts, axis=0)
    means = check_finite(means, normalize=normalize)
    # The vector of a text of one part stays what it is, to the last bit.
    whole = np.asarray(parts) == 1
    means[whole] = vectors[starts[whole]]
    return means
