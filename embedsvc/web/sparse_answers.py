"""Sparse vectors in JSON, as routes answer them."""

from collections.abc import Callable
from typing import Any

from embedsvc.serving.embedded import SparseVector


def as_object(vector: SparseVector, token_name: Callable[[int], str]) -> dict[str, Any]:
    """An object of arrays: indices, values, and the tokens that the indices are the ids of."""
    indices, values = vector
    tokens = [token_name(index) for index in indices.tolist()]
    return {"indices": indices, "values": values, "tokens": tokens}


def as_pairs(vector: SparseVector) -> list[dict[str, Any]]:
    """A list of objects, each of an index and a value; values in the fewest digits of float32."""
    return [
        {"index": index, "value": value}
        for index, value in zip(vector.indices.tolist(), vector.values, strict=True)
    ]
