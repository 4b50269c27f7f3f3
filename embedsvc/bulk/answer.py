"""A server's answer to a request for vectors or for scores, checked against the request."""

import binascii
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.texts.late_chunking import Chunk
from embedsvc.web.dialects.openai_schema import ChunkRow


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float]
    chunk: ChunkRow | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Sent(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None
    model: str = ""


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Ranked(msgspec.Struct):
    results: list[_Result]


class Answer(NamedTuple):
    """A complete answer."""

    vectors: NDArray[np.float32]  # (n, D), in the order of the texts
    chunks: list[list[Chunk]] | None
    """The chunks of each text, if chunks were asked for; `vectors` has a row for each of them."""
    tokens: int
    model: str
    """The model's name in the answer; empty if it has none."""


def read_answer(content: bytes, texts: Sequence[str], *, chunked: bool) -> Answer:
    """The answer for these texts. Raises `ValueError`, which says what is wrong with it."""
    try:
        sent = msgspec.json.decode(content, type=_Sent)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    rows = sorted(sent.data, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(len(rows))):
        raise ValueError("rows are missing")
    chunks = _chunks(rows, texts) if chunked else None
    if chunks is None and len(rows) != len(texts):
        raise ValueError(f"{len(rows)} vectors for {len(texts)} texts")
    tokens = sent.usage.prompt_tokens if sent.usage else 0
    return Answer(_matrix(rows), chunks, tokens, sent.model)


def read_scores(content: bytes, count: int) -> NDArray[np.float64]:
    """The scores (n,) of so many documents, in their order, from a server that reranks.

    Raises `ValueError`, which says what is wrong with the answer.
    """
    try:
        results = msgspec.json.decode(content, type=_Ranked).results
    except RecursionError as error:
        raise ValueError(str(error)) from None
    scores = np.full(count, np.nan)
    if sorted(result.index for result in results) != list(range(count)):
        raise ValueError(f"{len(results)} results for {count} documents, or not one of each")
    for result in results:
        scores[result.index] = result.relevance_score
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    return scores


def _matrix(rows: Sequence[_Row]) -> NDArray[np.float32]:
    """The vectors (n, D) of an answer. Raises `ValueError` if they are no directions."""
    vectors = np.stack([_vector(row.embedding) for row in rows])
    if not vectors.shape[1]:
        raise ValueError("a vector has no dimensions")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector is not finite")
    if not vectors.any(axis=1).all():
        raise ValueError("a vector is zero")
    return vectors


def _vector(sent: str | list[float]) -> NDArray[np.float32]:
    if isinstance(sent, str):
        return np.frombuffer(binascii.a2b_base64(sent), "<f4")
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return np.array(sent, np.float32)


def _chunks(rows: Sequence[_Row], texts: Sequence[str]) -> list[list[Chunk]]:
    """The chunks of each text. The rows are in the order of the texts. Raises `ValueError`."""
    chunks: list[list[Chunk]] = [[] for _ in texts]
    last = 0
    for row in rows:
        if row.chunk is None:
            raise ValueError("the server does not do late chunking")
        number, start, end, tokens = (
            row.chunk.input,
            row.chunk.start,
            row.chunk.end,
            row.chunk.tokens,
        )
        if not last <= number < len(texts) or not 0 <= start <= end <= len(texts[number]):
            raise ValueError("a chunk is not of the texts")
        chunks[number].append(Chunk(start, end, tokens))
        last = number
    if not all(chunks):
        raise ValueError("a text has no chunk")
    return chunks
