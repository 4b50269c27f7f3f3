"""The one way from a request for vectors of tokens to its answer, whichever dialect it came in."""

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.bounds import VECTOR_BYTES
from embedsvc.catalog.cards import Card
from embedsvc.serving.engine import Engine
from embedsvc.serving.token_request import EmbeddedTokens, embed_tokens
from embedsvc.texts.requests import EmbeddingRequest
from embedsvc.web import answers
from embedsvc.web.computing import Caching, compute
from embedsvc.web.endpoint import JsonResponse

TokenDtype = Literal["float32", "float16"]
COMPONENT_BYTES: dict[TokenDtype, float] = {"float32": 16 / 3, "float16": 8 / 3}
"""Bytes that a number takes in base64."""
NUMBER_BYTES = 13
"""Bytes that a number takes in digits, at most, with what stands behind it."""


class WriteTokens(Protocol):
    """How a dialect writes vectors of tokens: the body of the answer, whole or in pieces."""

    async def __call__(self, embedded: EmbeddedTokens, /) -> bytes | list[bytes]: ...


async def answer_tokens(
    request: Request, asked: EmbeddingRequest, write: WriteTokens, dtype: TokenDtype = "float32"
) -> Response:
    """The answer to a request for vectors of tokens, in base64 of that type, or in digits, as
    `asked.encoding_format` says.

    Raises `RequestError`; before anything is computed if the model gives none, or the answer would
    be too large. Raises `ClientGone` if the client hangs up first, and computes no further.
    """
    size = COMPONENT_BYTES[dtype] if asked.encoding_format == "base64" else NUMBER_BYTES

    async def embed(
        engine: Engine, card: Card, prompt: str | None, caching: Caching
    ) -> EmbeddedTokens:
        most = int(VECTOR_BYTES / (size * max(engine.dimensions, 1)))
        return await embed_tokens(engine, card, prompt, asked, most_rows=most, **caching)

    embedded, headers = await compute(request, asked.model, "embed", len(asked.inputs), embed)
    return JsonResponse(await write(embedded), headers)


def written(vectors: NDArray[Any], dtype: TokenDtype | None = None) -> Iterator[bytes]:
    """The JSON of a text's vectors (n, d), some rows in each part: lists of numbers, or a string in
    base64 of that type.

    >>> b"".join(written(np.array([[1, 2], [3, 4]], np.float32)))
    b'[[1.0,2.0],[3.0,4.0]]'
    """
    step = max(answers.COMPONENTS // max(vectors.shape[1], 1), 1)
    if dtype is not None:
        step += -step % 3  # so that the base64 of all parts but the last ends without padding
    yield b"[" if dtype is None else b'"'
    for first in range(0, len(vectors), step):
        some = vectors[first : first + step]
        if dtype is not None:
            yield in_base64(some, dtype).encode()
        else:
            yield (b"," if first else b"") + answers.dump_items(some)
    yield b"]" if dtype is None else b'"'


def in_base64(vectors: Sequence[Any] | NDArray[Any], dtype: TokenDtype) -> str:
    """Their bytes row by row, little-endian.

    >>> in_base64(np.array([[1, 2]], np.float32), "float16")
    'ADwAQA=='
    """
    code = "<f4" if dtype == "float32" else "<f2"
    rows = np.ascontiguousarray(np.asarray(vectors), code)
    return binascii.b2a_base64(rows.tobytes(), newline=False).decode()
