"""vLLM's route for the vectors of a text's tokens, which late-interaction models give."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import starmap
from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec
import orjson
from msgspec import Meta
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.serving.token_request import EmbeddedTokens
from embedsvc.texts.requests import (
    Choice,
    EmbeddingRequest,
    EncodingFormat,
    ModelName,
    read_inputs,
    read_truncate,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import join_in_turns
from embedsvc.web.dialects.openai_schema import Usage
from embedsvc.web.endpoint import Endpoint, read_body
from embedsvc.web.state import state_of
from embedsvc.web.token_answers import TokenDtype, answer_tokens, written

REFUSED = Rule("error", remedy='send "truncate": "end" or "start"')


class PoolingBody(msgspec.Struct, kw_only=True):
    """Texts whose tokens get vectors. They are documents unless `input_type` or `prompt_name`
    names a prompt for queries."""

    model: ModelName
    input: Annotated[str | list[str], Meta(description="A text, or texts.")]
    task: Literal["token_embed"] | None = None
    encoding_format: EncodingFormat | None = None
    embed_dtype: Annotated[
        TokenDtype | None, Meta(description="The type of the numbers that base64 is of.")
    ] = None
    input_type: Choice | None = None
    prompt_name: Choice | None = None
    truncate: Literal["error", "end", "start"] | bool | None = None


class PoolingRow(msgspec.Struct):
    """The vectors of a text's tokens; in base64 row by row, with their number and size in
    `shape`."""

    index: int
    object: Literal["pooling"]
    data: list[list[float]] | str
    shape: tuple[int, int]


class PoolingAnswer(msgspec.Struct):
    """The vectors in the order of the texts."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[PoolingRow]
    usage: Usage


async def pooling(request: Request) -> Response:
    """`POST /pooling`: a vector for each token of texts, by a late-interaction model."""
    sent = await read_body(request, PoolingBody)
    asked = EmbeddingRequest(
        model=sent.model,
        inputs=read_inputs(sent.input, state_of(request).settings.max_inputs),
        encoding_format=sent.encoding_format or "float",
        input_type=sent.input_type,
        prompt_name=sent.prompt_name,
        truncate=read_truncate(sent.truncate),
        otherwise=REFUSED,
    )
    dtype: TokenDtype = sent.embed_dtype or "float32"
    return await answer_tokens(request, asked, partial(_write, asked, dtype), dtype)


routes = [Endpoint("POST", "/pooling", pooling, body=PoolingBody, answer=PoolingAnswer)]


async def _write(
    asked: EmbeddingRequest, dtype: TokenDtype, embedded: EmbeddedTokens
) -> list[bytes]:
    in_text = dtype if asked.encoding_format == "base64" else None

    def row(index: int, vectors: NDArray[Any]) -> Iterator[bytes]:
        yield b'{"index":%d,"object":"pooling","data":' % index
        yield from written(vectors, in_text)
        yield b',"shape":[%d,%d]}' % vectors.shape

    usage = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    begin = {"id": f"pool-{uuid4().hex}", "object": "list", "created": int(time.time())}
    head = orjson.dumps(begin | {"model": asked.model})[:-1] + b',"data":['
    end = b'],"usage":%b}' % orjson.dumps(usage)
    return [head, *await join_in_turns(starmap(row, enumerate(embedded.vectors))), end]
