"""Whether answers are embeddings, and the right ones."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.texts import MODEL, ROOT

DIMENSION = 384
NORM_TOLERANCE = 1e-3
LEAST_COSINE = 0.9999
REFERENCE = ROOT / "tests" / "reference"
SAMPLE = (12, 13, 15, 17, 21, 23, 24, 27, 31, 35, 66, 71, 74, 96, 99, 100, 103, 106, 107, 108, 109)
"""Recorded texts that every server is asked for: of 5 to 256 tokens, in several scripts."""


class NotEmbeddings(ValueError):
    """An answer that is not what was asked for; says why."""


@dataclass
class Reference:
    """Texts and the vectors sentence-transformers made of them."""

    texts: list[str]
    vectors: NDArray[np.float32]


def read_reference() -> Reference:
    """The recorded sample the tests use too."""
    texts = json.loads((REFERENCE / "texts.json").read_text(encoding="utf-8"))
    vectors = np.load(REFERENCE / f"{MODEL}.npy", allow_pickle=False)
    return Reference([texts[index] for index in SAMPLE], vectors[list(SAMPLE)])


def read_vectors(body: bytes, count: int) -> tuple[NDArray[np.float32], Any]:
    """Vectors (count, D) in the order of the input, and `usage.prompt_tokens`, if any.

    Reads floats and base64, whichever came. Raises `NotEmbeddings`.
    """
    try:
        answer = orjson.loads(body)
        rows = sorted(answer["data"], key=lambda row: row["index"])
        indices = [row["index"] for row in rows]
        vectors = np.array([_vector(row["embedding"]) for row in rows], dtype=np.float32)
        tokens = (answer.get("usage") or {}).get("prompt_tokens")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotEmbeddings(f"{type(error).__name__}: {error}"[:100]) from None
    if indices != list(range(count)):
        raise NotEmbeddings(f"{len(indices)} vectors for {count} texts, or their indices are off")
    if vectors.shape != (count, DIMENSION):
        raise NotEmbeddings(f"dimension {vectors.shape[-1]}, not {DIMENSION}")
    return vectors, tokens


def check_answers(bodies: Sequence[bytes], counts: Sequence[int]) -> tuple[Counter[str], int]:
    """What is wrong with answers, by kind, and the tokens the server says it has read."""
    wrong: Counter[str] = Counter()
    total = 0
    for body, count in zip(bodies, counts, strict=True):
        try:
            vectors, tokens = read_vectors(body, count)
        except NotEmbeddings as error:
            wrong[str(error)] += 1
            continue
        total += tokens if isinstance(tokens, int) else 0
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


def cosines(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row with the row it should be; 0 where it is not finite or has no direction."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    with np.errstate(all="ignore"):
        return np.nan_to_num((vectors * expected).sum(axis=1) / lengths)


def _vector(sent: Any) -> Any:
    if isinstance(sent, str):
        return np.frombuffer(base64.b64decode(sent), dtype="<f4")
    return sent
