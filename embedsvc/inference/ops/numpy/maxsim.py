"""MaxSim on NumPy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Floats

ROWS = 1024
"""Tokens of documents whose products are in memory at once."""


def score_documents(query: Floats, documents: Sequence[NDArray[np.float16]]) -> Floats:
    """`Ops.maxsim`."""
    return np.array([_score(query, document) for document in documents], np.float32)


def _score(query: Floats, document: NDArray[np.float16]) -> np.float32:
    best = np.full(len(query), -np.inf, np.float32)
    for first in range(0, len(document), ROWS):
        part = document[first : first + ROWS].astype(np.float32)
        np.maximum(best, (query @ part.T).max(axis=1), out=best)
    return best.sum()
