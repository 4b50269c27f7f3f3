"""Whether answers are embeddings."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

NORM_TOLERANCE = 1e-3


class NotEmbeddings(ValueError):
    """An answer that is not what was asked for; says why."""


def read_vectors(
    body: bytes, count: int, dimensions: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """Vectors (count, D) in the order of the input, and `usage.prompt_tokens`, 0 if not said.

    Reads floats and base64, whichever came. Raises `NotEmbeddings`.
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
    """What is wrong with answers, by kind, and the tokens the server says it has read."""
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
    """What is wrong with vectors (n, D)."""
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
