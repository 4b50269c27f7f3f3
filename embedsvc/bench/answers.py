"""Checks whether answers are embeddings, or scores of documents."""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

NORM_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


class WrongAnswer(ValueError):
    """An answer is not what was asked for. The message says why."""


class Checked(NamedTuple):
    """What is in an answer, as far as it can be told without knowing the model."""

    problems: list[str]
    """What is wrong with its numbers: nothing, or one thing."""
    tokens: int
    """How many tokens the server says it read; 0 if it does not say."""


Check = Callable[[bytes, int], Checked]
"""Looks at the answer to a request of so many texts. Raises `WrongAnswer`."""


def read_vectors(
    body: bytes, count: int, dimensions: int | None = None
) -> tuple[NDArray[np.float32], int]:
    """Vectors (count, D) in the order of the inputs, and `usage.prompt_tokens`, or 0 without it.

    Both floats and base64 are read. Raises `WrongAnswer`.

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
        raise WrongAnswer("an answer that is none of embeddings, as OpenAI has it") from None
    if indices != list(range(count)):
        raise WrongAnswer(f"{len(indices)} vectors for {count} texts, or their indices are off")
    if dimensions and vectors.shape != (count, dimensions):
        raise WrongAnswer(f"dimension {vectors.shape[-1]}, not {dimensions}")
    return vectors, tokens


def check_vectors(dimensions: int | None) -> Check:
    """Looks whether answers are vectors (count, `dimensions`) of length 1."""

    def check(body: bytes, count: int) -> Checked:
        vectors, tokens = read_vectors(body, count, dimensions)
        return Checked(problems(vectors), tokens)

    return check


ANY_VECTORS = check_vectors(None)
"""The same, of any number of dimensions."""


def check_scores(body: bytes, count: int) -> Checked:
    """Look whether an answer has a score of each document, the best first. Raises `WrongAnswer`.

    >>> check_scores(b'{"results": [{"index": 0, "relevance_score": 0.5}]}', 1)
    Checked(problems=[], tokens=0)
    """
    try:
        answer = orjson.loads(body)
        indices = sorted(row["index"] for row in answer["results"])
        scores = np.array([row["relevance_score"] for row in answer["results"]], dtype=np.float64)
        usage: dict[str, Any] = answer.get("usage") or {}
        tokens = int(usage.get("total_tokens") or 0)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WrongAnswer("an answer that is none of rerankers, as Cohere and Jina have it") from (
            None
        )
    if indices != list(range(count)):
        raise WrongAnswer(f"{len(indices)} results for {count} documents, or not one of each")
    if not np.isfinite(scores).all():
        return Checked(["not finite"], tokens)
    return Checked(["not the best first"] if (np.diff(scores) > 0).any() else [], tokens)


def check_answers(
    bodies: Sequence[bytes], counts: Sequence[int], check: Check
) -> tuple[Counter[str], int]:
    """How often each thing is wrong in the answers, and how many tokens the server says it read."""
    wrong = Counter[str]()
    total = 0
    for body, count in zip(bodies, counts, strict=True):
        try:
            found = check(body, count)
        except WrongAnswer as error:
            wrong[str(error)] += 1
            continue
        total += found.tokens
        wrong.update(found.problems)
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
