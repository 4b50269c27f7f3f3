"""Checks whether answers are embeddings."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

NORM_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


class NotEmbeddings(ValueError):
    """An answer is not what was asked for. The message says why."""


def read_vectors(
    body: bytes, count: int, dimensions: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """Vectors (count, D) in the order of the inputs, and `usage.prompt_tokens`, or 0 without it.

    Both floats and base64 are read. Raises `NotEmbeddings`.

    >>> body = b'{"data": [{"index": 0, "embedding": [0.6, 0.8]}], "usage": {"prompt_tokens": 3}}'
    >>> vectors, tokens = read_vectors(body, count=1)
    >>> vectors.shape, tokens
    ((1, 2), 3)
    """
    try:
        answer = orjson.loads(body)
        rows = sorted(answer["data"], key=lambda row: row["index"])
        indices = [row["index"] for row in rows]
        vectors = np.array([_vector(row["embedding"]) for row in rows], dtype=np.float32)
        usage: dict[str, Any] = answer.get("usage") or {}
        tokens = int(usage.get("prompt_tokens") or 0)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NotEmbeddings("an answer that is none of embeddings, as OpenAI has it") from None
    if indices != list(range(count)):
        raise NotEmbeddings(f"{len(indices)} vectors for {count} texts, or their indices are off")
    if dimensions and vectors.shape != (count, dimensions):
        raise NotEmbeddings(f"dimension {vectors.shape[-1]}, not {dimensions}")
    return vectors, tokens


def check_answers(
    bodies: Sequence[bytes], counts: Sequence[int], dimensions: int | None = None
) -> tuple[Counter[str], int]:
    """How often each thing is wrong in the answers, and how many tokens the server says it read."""
    wrong = Counter[str]()
    total = 0
    for body, count in zip(bodies, counts, strict=True):
        try:
            vectors, tokens = read_vectors(body, count, dimensions)
        except NotEmbeddings as error:
            wrong[str(error)] += 1
            continue
        total += tokens
        wrong.update(problems(vectors))
    return wrong, total


def problems(vectors: NDArray[np.float32]) -> list[str]:
    """What is wrong with vectors (n, D): nothing, or one thing.

    >>> problems(np.array([[0.6, 0.8], [3.0, 4.0]], np.float32))
    ['not of length 1']
    """
    norms = np.linalg.norm(vectors, axis=1)
    if not np.isfinite(norms).all():
        return ["not finite"]
    if np.abs(norms - 1).max() > NORM_TOLERANCE:
        return ["not of length 1"]
    return []


def _vector(sent: Any) -> Any:
    if isinstance(sent, str):
        return np.frombuffer(base64.b64decode(sent), dtype="<f4")
    return sent
