"""Answers of OpenAI's embeddings API, written as JSON."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.serving.embedded import SparseVector
from embedsvc.texts.late_chunking import Chunk
from embedsvc.texts.requests import ComponentType, EncodingFormat
from embedsvc.web.answers import dump_items, in_turns, values_of
from embedsvc.web.dialects.openai_schema import ChunkRow
from embedsvc.web.sparse_answers import as_object


async def write_embeddings(
    vectors: NDArray[np.float32],
    *,
    model: str,
    tokens: int,
    encoding_format: EncodingFormat = "float",
    dtypes: Sequence[ComponentType] | ComponentType = "float",
    chunks: Sequence[ChunkRow] | None = None,
    sparse: Sequence[SparseVector] | None = None,
    token_name: Callable[[int], str] = str,
) -> list[bytes]:
    """The whole answer with vectors (n, D), in pieces, and `sparse` ones beside them, whose tokens
    have names. Raises what `in_turns` does."""

    def write(some: slice) -> bytes:
        return write_rows(
            vectors[some],
            first=some.start,
            encoding_format=encoding_format,
            dtypes=dtypes,
            chunks=chunks and chunks[some],
            sparse=None if sparse is None else [as_object(v, token_name) for v in sparse[some]],
        )

    entries = sum(len(vector.indices) for vector in sparse or ())
    beside = 3 * entries // max(len(vectors), 1)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    end = b'],"model":%b,"usage":%b}' % (orjson.dumps(model), orjson.dumps(usage))
    return [b'{"object":"list","data":[', *await in_turns(vectors, write, beside=beside), end]


def write_rows(
    vectors: NDArray[np.float32],
    *,
    first: int = 0,
    encoding_format: EncodingFormat = "float",
    dtypes: Sequence[ComponentType] | ComponentType = "float",
    chunks: Sequence[ChunkRow] | None = None,
    sparse: Sequence[dict[str, Any]] | None = None,
) -> bytes:
    """Rows of the answer for vectors (n, D). `first` is the index of the first of them.

    Of several dtypes, each row has its vector in every one of them, by name; of none, an object
    without any. `sparse` vectors stand beside.

    >>> write_rows(np.array([[1, 0]], np.float32), first=3)
    b'{"object":"embedding","index":3,"embedding":[1.0,0.0]}'
    """
    values: Iterable[Any]
    if not vectors.shape[1]:
        values = ({} for _ in vectors)
    elif isinstance(dtypes, str):
        values = values_of(vectors, dtypes, encoding_format)
    else:
        columns = [values_of(vectors, dtype, encoding_format) for dtype in dtypes]
        values = (dict(zip(dtypes, row, strict=True)) for row in zip(*columns, strict=True))
    rows: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": value}
        for index, value in enumerate(values, first)
    ]
    if chunks is not None:
        for row, chunk in zip(rows, chunks, strict=True):
            row["chunk"] = msgspec.structs.asdict(chunk)
    if sparse is not None:
        for row, vector in zip(rows, sparse, strict=True):
            row["sparse_embedding"] = vector
    return dump_items(rows)


def chunk_rows(chunks: list[list[Chunk]] | None) -> list[ChunkRow] | None:
    """What each row of the answer is the vector of, with late chunking.

    >>> chunk_rows([[Chunk(0, 4, 2), Chunk(5, 9, 3)]])[1]
    ChunkRow(input=0, start=5, end=9, tokens=3)
    """
    if chunks is None:
        return None
    return [
        ChunkRow(index, chunk.start, chunk.end, chunk.tokens)
        for index, of_input in enumerate(chunks)
        for chunk in of_input
    ]
