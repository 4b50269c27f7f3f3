"""The routes of Hugging Face's text-embeddings-inference, whose server has one model.

Here that is the first card of the cards file. Of our own, `/tokenize` takes `model` too.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc import __version__
from embedsvc.errors import BadRequest
from embedsvc.serving.engine import Engine
from embedsvc.serving.registry import Registry
from embedsvc.texts.explained import Token
from embedsvc.texts.prompts import choose
from embedsvc.texts.requests import (
    Choice,
    Dimensions,
    EmbeddingRequest,
    Fields,
    ModelName,
    read_inputs,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import write_vectors
from embedsvc.web.embedding import embed
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body

FIELDS = Fields("inputs")
REFUSED = Rule("error", remedy='send "truncate": true')
ROWS = 2048
"""Tokens written in one turn of the event loop, which takes less than a millisecond."""
Texts = Annotated[str | list[str], Meta(description="A text, or texts.")]


class TeiEmbedBody(msgspec.Struct):
    inputs: Texts
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    prompt_name: Choice | None = None
    normalize: bool | None = None
    dimensions: Dimensions | None = None


EmbedAnswer = list[list[float]]


class TokenizeBody(msgspec.Struct):
    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: Choice | None = None
    model: Annotated[ModelName | None, Meta(description="Another than the first.")] = None


class Info(msgspec.Struct):
    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, str]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str


async def create_embeddings(request: Request) -> Response:
    """`POST /embed`: vectors of texts."""
    sent = await read_body(request, TeiEmbedBody)
    async with _model(request) as (name, engine):
        if sent.normalize is False and engine.checkpoint.normalize:
            raise BadRequest("Invalid 'normalize': this model's vectors have length 1.")
    side = "start" if (sent.truncation_direction or "").lower() == "left" else "end"
    wanted = EmbeddingRequest(
        model=name,
        inputs=_texts(request, sent.inputs),
        dimensions=sent.dimensions,
        prompt_name=sent.prompt_name,
        truncate=None if sent.truncate is None else (side if sent.truncate else "error"),
        otherwise=REFUSED,
        fields=FIELDS,
    )
    answer = await embed(request, wanted)
    return JsonResponse(await write_vectors(answer.embedded.vectors), answer.headers)


async def tokenize(request: Request) -> Response:
    """`POST /tokenize`: the model's tokens of texts."""
    sent = await read_body(request, TokenizeBody)
    texts = _texts(request, sent.inputs)
    async with _model(request, sent.model) as (name, engine):
        wanted = EmbeddingRequest(model=name, inputs=texts, prompt_name=sent.prompt_name)
        prompt = choose(engine.checkpoint.prompts, wanted, None, engine.checkpoint.default_prompt)
        texts = [prompt + text for text in texts]
        explained = await engine.explain(texts, special=sent.add_special_tokens)
    return JsonResponse(await _write(explained))


async def info(request: Request) -> Response:
    """`GET /info`: the model and the limits."""
    async with _model(request) as (name, engine):
        checkpoint, settings = engine.checkpoint, request.app.state.settings
        card, _ = request.app.state.registry.card(name)
        told = Info(
            model_id=card.repo or name,
            model_sha=card.revision,
            model_dtype=engine.dtype,
            model_type={"embedding": {"pooling": " + ".join(checkpoint.pooling)}},
            max_concurrent_requests=settings.max_waiting_tokens,
            max_input_length=engine.tokenizer.max_tokens,
            max_batch_tokens=engine.max_batch_tokens,
            max_batch_requests=None,
            max_client_batch_size=settings.max_inputs,
            auto_truncate=(card.truncate or engine.truncate or REFUSED.truncate) != "error",
            tokenization_workers=1,
            version=__version__,
        )
    return JsonResponse(msgspec.json.encode(told))


routes = [
    Endpoint("POST", "/embed", create_embeddings, body=TeiEmbedBody, answer=EmbedAnswer),
    Endpoint("POST", "/", create_embeddings, body=TeiEmbedBody, answer=EmbedAnswer),
    Endpoint("POST", "/tokenize", tokenize, body=TokenizeBody, answer=list[list[Token]]),
    Endpoint("GET", "/info", info, answer=Info),
]


async def _write(explained: Sequence[Sequence[Token]]) -> list[bytes]:
    """A list of tokens for each text, some in each turn of the event loop."""
    pieces: list[bytes] = []
    piece = bytearray(b"[")
    rows = 0
    for index, tokens in enumerate(explained):
        piece += b",[" if index else b"["
        for first in range(0, len(tokens), ROWS):
            some = tokens[first : first + ROWS]
            piece += b"," if first else b""
            piece += msgspec.json.encode(some)[1:-1]
            rows += len(some)
            if rows >= ROWS:
                pieces.append(bytes(piece))
                piece.clear()
                rows = 0
                await asyncio.sleep(0)
        piece += b"]"
    return [*pieces, bytes(piece) + b"]"]


@asynccontextmanager
async def _model(request: Request, name: str | None = None) -> AsyncGenerator[tuple[str, Engine]]:
    registry: Registry = request.app.state.registry
    name = name or next(iter(registry.cards.by_id))
    async with registry.use(name) as engine:
        yield name, engine


def _texts(request: Request, inputs: str | list[str]) -> list[str]:
    texts: list[Any] = list(
        read_inputs(inputs, request.app.state.settings.max_inputs, FIELDS.input)
    )
    return texts
