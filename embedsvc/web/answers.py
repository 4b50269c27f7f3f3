"""Vectors as bytes of JSON, in pieces: long answers are written in many turns of the event loop.

Of an answer there is only ever one copy, which goes as the client reads it.
"""

import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.bounds import VECTOR_BYTES
from embedsvc.serving.quantize import quantize
from embedsvc.texts.requests import Dtype, EncodingFormat
from embedsvc.web.budget import hold_answer, turn_to_write
from embedsvc.web.dialects.openai_schema import ChunkRow

COMPONENTS = 25_000
"""Components of vectors written in one turn of the event loop, which takes about a millisecond."""
ROW = 100
"""Bytes of a row beside its vector, at most."""
BYTES: dict[Dtype, tuple[float, float]] = {
    "float": (13, 16 / 3),
    "int8": (4, 4 / 3),
    "uint8": (4, 4 / 3),
    "binary": (4 / 8, 1 / 6),
    "ubinary": (4 / 8, 1 / 6),
}
"""What a component takes in each type, as a number and in base64."""
Form = tuple[Dtype, EncodingFormat]


def most_rows(dimensions: int, forms: Iterable[Form]) -> int:
    """How many rows an answer may have, with vectors of so many components in all these forms."""
    component = sum(BYTES[dtype][form == "base64"] for dtype, form in forms)
    return int(VECTOR_BYTES / (ROW + dimensions * component))


async def write_embeddings(
    vectors: NDArray[np.float32],
    *,
    model: str,
    tokens: int,
    encoding_format: EncodingFormat = "float",
    dtypes: Sequence[Dtype] | Dtype = "float",
    chunks: Sequence[ChunkRow] | None = None,
) -> list[bytes]:
    """The answer of OpenAI's embeddings API with vectors (n, D)."""

    def write(some: slice) -> bytes:
        return write_rows(
            vectors[some],
            first=some.start,
            encoding_format=encoding_format,
            dtypes=dtypes,
            chunks=chunks and chunks[some],
        )

    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    end = b'],"model":%b,"usage":%b}' % (orjson.dumps(model), orjson.dumps(usage))
    return [b'{"object":"list","data":[', *await in_turns(vectors, write), end]


async def write_vectors(
    vectors: NDArray[np.float32],
    dtype: Dtype = "float",
    encoding_format: EncodingFormat = "float",
) -> list[bytes]:
    """A list of vectors (n, D), each a list of numbers or text in base64."""

    def write(some: slice) -> bytes:
        return _inside(write_values(vectors[some], dtype, encoding_format))

    return [b"[", *await in_turns(vectors, write), b"]"]


async def in_turns(vectors: NDArray[np.float32], write: Callable[[slice], bytes]) -> list[bytes]:
    """What `write` makes of some rows at a time, set apart by commas, with turns for others.

    Raises `TooManyBytes` where all answers that are written or wait to be read are too large.
    """
    step = max(COMPONENTS // vectors.shape[1], 1)
    if len(vectors) <= step:
        return [write(slice(0, step))]
    pieces: list[bytes] = []
    held = vectors.nbytes
    for first in range(0, len(vectors), step):
        hold_answer(held)
        async with turn_to_write():
            pieces.append(write(slice(first, first + step)) + b",")
        held += len(pieces[-1])
    pieces[-1] = pieces[-1][:-1]
    return pieces


def write_rows(
    vectors: NDArray[np.float32],
    *,
    first: int = 0,
    encoding_format: EncodingFormat = "float",
    dtypes: Sequence[Dtype] | Dtype = "float",
    chunks: Sequence[ChunkRow] | None = None,
) -> bytes:
    """The answer's rows for vectors (n, D), of which the first is number `first`.

    Floats are written in the fewest digits that read back to the same float32; base64 is of the
    values' bytes, little-endian.
    """
    values: Iterable[Any]
    if isinstance(dtypes, str):
        values = write_values(vectors, dtypes, encoding_format)
    else:
        columns = [write_values(vectors, dtype, encoding_format) for dtype in dtypes]
        values = (dict(zip(dtypes, row, strict=True)) for row in zip(*columns, strict=True))
    rows: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": value}
        for index, value in enumerate(values, first)
    ]
    if chunks is not None:
        for row, chunk in zip(rows, chunks, strict=True):
            row["chunk"] = msgspec.structs.asdict(chunk)
    return _inside(rows)


def write_values(
    vectors: NDArray[np.float32], dtype: Dtype, encoding_format: EncodingFormat
) -> Sequence[Any] | NDArray[Any]:
    """Each vector in that type, as orjson takes it: an array, or text in base64."""
    values = quantize(vectors, dtype)
    if encoding_format == "base64":
        return [binascii.b2a_base64(row, newline=False).decode() for row in values]
    return values


def _inside(rows: Any) -> bytes:
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]  # less the brackets
