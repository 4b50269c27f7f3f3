"""MaxSim in C: see maxsim.inc."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Floats


def score_documents(
    functions: Any, kernels: int, query: Floats, documents: Sequence[NDArray[np.float16]]
) -> Floats:
    """`Ops.maxsim` by the kernels of that number. Raises `MemoryError`, and `ValueError`
    if a document's vectors (n, d) are not as wide as the query's."""
    query = np.require(query, np.float32, ["C", "A"])
    documents = [np.require(document, np.float16, ["C", "A"]) for document in documents]
    for document in documents:
        if query.ndim != 2 or document.ndim != 2 or document.shape[1] != query.shape[1]:
            raise ValueError(f"a query of {query.shape} for a document of {document.shape}")
    pointers = np.array([document.ctypes.data for document in documents], np.uint64)
    lengths = np.array([len(document) for document in documents], np.int64)
    scores = np.empty(len(documents), np.float32)
    done = functions.embedsvc_maxsim(
        *(kernels, query.ctypes.data, *query.shape, pointers.ctypes.data),
        *(lengths.ctypes.data, len(documents), scores.ctypes.data),
    )
    if done < 0:
        raise MemoryError(f"no memory for the scores of {len(documents)} documents")
    if not done:
        raise ValueError(f"a query of {query.shape} for {len(documents)} documents")
    return scores
