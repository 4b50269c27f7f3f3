"""The routes of Hugging Face's text-embeddings-inference (TEI), whose server has one model.

Here that model is the first in the cards file that does what a route is for, unless the body has a
`model`, which is our own addition. Those that give scores are in `tei_scores.py` and `rerank.py`.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc import __version__
from embedsvc.catalog.cards import Truncate
from embedsvc.errors import BadRequest
from embedsvc.serving.embedded import Embedded
from embedsvc.serving.engine import Engine
from embedsvc.serving.token_request import EmbeddedTokens
from embedsvc.texts.explained import Token
from embedsvc.texts.prompts import choose
from embedsvc.texts.requests import (
    Choice,
    Dimensions,
    EmbeddingRequest,
    Fields,
    MaxActiveDims,
    MinWeight,
    ModelName,
    read_inputs,
    read_sparse,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import dump_in_turns, join_in_turns, write_vectors
from embedsvc.web.embedding import answer_embeddings
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body
from embedsvc.web.scoring import first_model
from embedsvc.web.sparse_answers import as_pairs
from embedsvc.web.state import registry_of, state_of
from embedsvc.web.token_answers import answer_tokens, written

FIELDS = Fields("inputs")
REFUSED = Rule("error", remedy='send "truncate": true')
ROWS = 2048
"""How many tokens are written in one turn of the event loop, in less than a millisecond."""
Direction = Literal["Left", "Right", "left", "right"] | None
Texts = Annotated[str | list[str], Meta(description="A text, or texts.")]
Another = Annotated[ModelName | None, Meta(description="Another than the first.")]


class TeiEmbedBody(msgspec.Struct):
    inputs: Texts
    truncate: bool | None = None
    truncation_direction: Direction = None
    prompt_name: Choice | None = None
    normalize: bool | None = None
    dimensions: Dimensions | None = None
    model: Another = None


class TeiTokensBody(msgspec.Struct):
    inputs: Texts
    truncate: bool | None = None
    truncation_direction: Direction = None
    prompt_name: Choice | None = None
    model: Annotated[
        ModelName | None, Meta(description="Default: the first that is loaded and gives those.")
    ] = None


EmbedAnswer = list[list[float]]
TokensAnswer = list[list[list[float]]]


class TeiSparseBody(msgspec.Struct):
    inputs: Texts
    truncate: bool | None = None
    truncation_direction: Direction = None
    prompt_name: Choice | None = None
    max_active_dims: MaxActiveDims = None
    min_weight: MinWeight = None
    model: Another = None


class SparseValue(msgspec.Struct):
    index: int
    value: float


SparseAnswer = list[list[SparseValue]]


class TokenizeBody(msgspec.Struct):
    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: Choice | None = None
    model: Another = None


class Info(msgspec.Struct):
    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, str | dict[str, str | int]]]
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
    return await embed(request, await read_body(request, TeiEmbedBody))


async def embed(request: Request, sent: TeiEmbedBody) -> Response:
    """The answer with the vectors that a body asks for. Raises `RequestError`."""
    asked = EmbeddingRequest(
        model=sent.model or first_model(request, "embed"),
        inputs=_texts(request, sent.inputs),
        dimensions=sent.dimensions,
        prompt_name=sent.prompt_name,
        truncate=_truncate(sent),
        otherwise=REFUSED,
        fields=FIELDS,
    )
    check = _check_unnormalized if sent.normalize is False else None
    return await answer_embeddings(request, asked, _write, check=check)


async def create_sparse_embeddings(request: Request) -> Response:
    """`POST /embed_sparse`: sparse vectors of texts."""
    return await embed_sparse(request, await read_body(request, TeiSparseBody))


async def embed_sparse(request: Request, sent: TeiSparseBody) -> Response:
    """The answer with the sparse vectors that a body asks for. Raises `RequestError`."""
    asked = EmbeddingRequest(
        model=sent.model or first_model(request, "sparse"),
        inputs=_texts(request, sent.inputs),
        prompt_name=sent.prompt_name,
        truncate=_truncate(sent),
        otherwise=REFUSED,
        sparse=read_sparse(sent.max_active_dims, sent.min_weight),
        dense=False,
        fields=FIELDS,
    )
    return await answer_embeddings(request, asked, _write_sparse)


async def tokenize(request: Request) -> Response:
    """`POST /tokenize`: the model's tokens of texts."""
    sent = await read_body(request, TokenizeBody)
    texts = _texts(request, sent.inputs)
    name = sent.model or first_model(request, "embed")
    async with registry_of(request).use(name) as engine:
        asked = EmbeddingRequest(model=name, inputs=texts, prompt_name=sent.prompt_name)
        prompt = choose(engine.checkpoint.prompts, asked, None, engine.checkpoint.default_prompt)
        texts = [prompt + text for text in texts]
        explained = await engine.explain(texts, special=sent.add_special_tokens)
    return JsonResponse(await _write_tokens(explained))


async def info(request: Request) -> Response:
    """`GET /info`: the model and the limits."""
    registry, settings = registry_of(request), state_of(request).settings
    name = next(iter(registry.cards.by_id))
    card, _ = registry.card(name)
    async with registry.use(name) as engine:
        answer = Info(
            model_id=card.repo or name,
            model_sha=card.revision,
            model_dtype=engine.dtype,
            model_type=_model_type(engine),
            max_concurrent_requests=settings.max_connections,
            max_input_length=engine.tokenizer.max_tokens,
            max_batch_tokens=engine.max_batch_tokens,
            max_batch_requests=None,
            max_client_batch_size=settings.max_inputs,
            auto_truncate=(card.truncate or engine.truncate or REFUSED.truncate) != "error",
            tokenization_workers=1,
            version=__version__,
        )
    return JsonResponse(msgspec.json.encode(answer))


async def create_token_embeddings(request: Request) -> Response:
    """`POST /embed_all`: a vector for each token of texts, by a late-interaction model."""
    sent = await read_body(request, TeiTokensBody)
    asked = EmbeddingRequest(
        model=sent.model or _model_of_tokens(request),
        inputs=_texts(request, sent.inputs),
        prompt_name=sent.prompt_name,
        truncate=_truncate(sent),
        otherwise=REFUSED,
        fields=FIELDS,
    )
    return await answer_tokens(request, asked, _write_token_vectors)


routes = [
    Endpoint("POST", "/embed", create_embeddings, body=TeiEmbedBody, answer=EmbedAnswer),
    Endpoint(
        "POST", "/embed_sparse", create_sparse_embeddings, body=TeiSparseBody, answer=SparseAnswer
    ),
    Endpoint(
        "POST", "/embed_all", create_token_embeddings, body=TeiTokensBody, answer=TokensAnswer
    ),
    Endpoint("POST", "/tokenize", tokenize, body=TokenizeBody, answer=list[list[Token]]),
    Endpoint("GET", "/info", info, answer=Info),
]


async def _write(embedded: Embedded) -> list[bytes]:
    return await write_vectors(embedded.vectors)


async def _write_token_vectors(embedded: EmbeddedTokens) -> list[bytes]:
    return [b"[", *await join_in_turns(map(written, embedded.vectors)), b"]"]


async def _write_sparse(embedded: Embedded) -> list[bytes]:
    rows = map(as_pairs, embedded.sparse or ())
    return [b"[", *await dump_in_turns(rows), b"]"]


def _truncate(sent: TeiEmbedBody | TeiSparseBody | TeiTokensBody) -> Truncate | None:
    """What becomes of texts that are too long; None where the body does not say it."""
    if sent.truncate is None:
        return None
    side = "start" if (sent.truncation_direction or "").lower() == "left" else "end"
    return side if sent.truncate else "error"


def _model_of_tokens(request: Request) -> str:
    """The first card whose model is loaded and gives vectors of tokens, which only its files tell.
    Models that clients chose are left out. Raises `BadRequest` if there is none."""
    registry = registry_of(request)
    engines = registry.engines()
    for name, card in registry.cards.by_id.items():
        if not card.ad_hoc and name in engines and "tokens" in engines[name].heads:
            return name
    raise BadRequest(
        "Missing 'model': no model that gives vectors of tokens is loaded. Name a late-interaction "
        "model (ColBERT)."
    )


async def _write_tokens(explained: Sequence[Sequence[Token]]) -> list[bytes]:
    """A list of tokens for each text, `ROWS` of them in each turn of the event loop."""
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


def _check_unnormalized(engine: Engine) -> None:
    """Raises `BadRequest` if the model has no vectors but those of length 1."""
    if engine.checkpoint.normalize:
        raise BadRequest("Invalid 'normalize': this model's vectors have length 1.")


def _model_type(engine: Engine) -> dict[str, dict[str, str | dict[str, str | int]]]:
    checkpoint = engine.checkpoint
    if checkpoint.task == "sparse":
        return {"embedding": {"pooling": "splade"}}
    if checkpoint.scoring is None:
        return {"embedding": {"pooling": " + ".join(checkpoint.pooling)}}
    labels = dict(enumerate(checkpoint.scoring.labels))
    told: dict[str, str | dict[str, str | int]] = {
        "id2label": {str(number): label for number, label in labels.items()},
        "label2id": {label: number for number, label in labels.items()},
    }
    return {"reranker" if len(labels) == 1 else "classifier": told}


def _texts(request: Request, inputs: str | list[str]) -> list[str]:
    """The texts of a request. Raises `BadRequest`."""
    max_inputs = state_of(request).settings.max_inputs
    return cast("list[str]", read_inputs(inputs, max_inputs, FIELDS.input))
