"""Vectors as bytes, as OpenAI's embeddings API answers them."""

import binascii
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.http.schema import ChunkRow
from embedsvc.quantize import Dtype, quantize
from embedsvc.texts.requests import EncodingFormat


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
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]  # less the brackets


def write_values(
    vectors: NDArray[np.float32], dtype: Dtype, encoding_format: EncodingFormat
) -> Iterable[Any]:
    """Each vector in that type, as orjson takes it: an array, or text in base64."""
    values = quantize(vectors, dtype)
    if encoding_format == "base64":
        return [binascii.b2a_base64(row, newline=False).decode() for row in values]
    return values


def write_embeddings(rows: Iterable[bytes], *, model: str, tokens: int) -> bytes:
    """The answer around what `write_rows` wrote."""
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(rows),
        orjson.dumps(model),
        orjson.dumps(usage),
    )
