"""Ollama's routes, as far as its clients use them for embeddings.

What is too long is cut unless `truncate` is false, as Ollama does it.
"""

import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest
from embedsvc.serving.registry import Registry
from embedsvc.texts.requests import (
    Dimensions,
    EmbeddingRequest,
    Fields,
    ModelName,
    read_truncate,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import write_vectors
from embedsvc.web.embedding import embed
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body

VERSION = "0.12.0"
"""The version of Ollama's API; clients ask for a least one."""


CUT = Rule("end", remedy='send "truncate": true')
"""Of a text that is too long, Ollama embeds the beginning."""


class OllamaEmbedBody(msgspec.Struct):
    """Options of the runner (`options`, `keep_alive`) are accepted and mean nothing here."""

    model: ModelName
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: Dimensions | None = None


class OllamaEmbedAnswer(msgspec.Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: int | msgspec.UnsetType = msgspec.UNSET
    load_duration: int | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_count: int | msgspec.UnsetType = msgspec.UNSET


class OldBody(msgspec.Struct):
    """One text, in Ollama's older route."""

    model: ModelName
    prompt: str | None = None


class OldAnswer(msgspec.Struct):
    embedding: list[float]


class Details(msgspec.Struct):
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Tag(msgspec.Struct):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(msgspec.Struct):
    models: list[Tag]


class ShowBody(msgspec.Struct):
    """Older clients say `name`."""

    model: ModelName | None = None
    name: ModelName | None = None


class Shown(msgspec.Struct):
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class Version(msgspec.Struct):
    version: str


async def root(_request: Request) -> Response:
    """`GET /`: the words by which Ollama's clients know that somebody is there."""
    # To browsers it is the dashboard.
    return PlainTextResponse("Ollama is running", headers={"vary": "accept"})


async def version(_request: Request) -> Response:
    """`GET /api/version`: the version of Ollama's API."""
    return JsonResponse(msgspec.json.encode(Version(VERSION)))


async def create_embeddings(request: Request) -> Response:
    """`POST /api/embed`: vectors of texts."""
    began = time.perf_counter()
    sent = await read_body(request, OllamaEmbedBody)
    inputs = [sent.input] if isinstance(sent.input, str) else sent.input or []
    if inputs in ([], [""]):  # a client's way to have the model loaded
        async with _registry(request).use(sent.model):
            return JsonResponse(msgspec.json.encode(OllamaEmbedAnswer(sent.model, [])))
    most: int = request.app.state.settings.max_inputs
    if len(inputs) > most:
        raise BadRequest(f"Invalid 'input': array length must be {most} or less.")
    wanted = EmbeddingRequest(
        model=sent.model,
        inputs=inputs,
        dimensions=sent.dimensions,
        truncate=read_truncate(sent.truncate),
        otherwise=CUT,
    )
    answer = await embed(request, wanted)
    about = OllamaEmbedAnswer(
        sent.model,
        [],
        total_duration=round((time.perf_counter() - began) * 1e9),
        load_duration=0,
        prompt_eval_count=answer.embedded.tokens,
    )
    # The vectors, between what is around the list without them.
    begin, end = msgspec.json.encode(about).rsplit(b"[]", 1)
    written = [begin, *await write_vectors(answer.embedded.vectors), end]
    return JsonResponse(written, answer.headers)


async def create_embedding(request: Request) -> Response:
    """`POST /api/embeddings`: the vector of one text."""
    sent = await read_body(request, OldBody)
    model = sent.model
    if not sent.prompt:
        async with _registry(request).use(model):
            return JsonResponse(msgspec.json.encode(OldAnswer([])))
    wanted = EmbeddingRequest(
        model=model, inputs=[sent.prompt], otherwise=CUT, fields=Fields("prompt")
    )
    answer = await embed(request, wanted)
    body = {"embedding": answer.embedded.vectors[0]}
    return JsonResponse(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), answer.headers)


async def list_tags(request: Request) -> Response:
    """`GET /api/tags`: the models."""
    registry = _registry(request)
    tags = [
        Tag(
            name=name,
            model=name,
            modified_at=_when(request),
            size=0,
            digest=(registry.card(name)[0].sha256 or "").rjust(64, "0"),
            details=_details(request, registry.card(name)[0]),
        )
        for name in registry.names()
    ]
    return JsonResponse(msgspec.json.encode(Tags(tags)))


async def show(request: Request) -> Response:
    """`POST /api/show`: what is known of one model."""
    sent = await read_body(request, ShowBody)
    name = sent.model or sent.name
    if not name:
        raise BadRequest("you must provide a model parameter")
    registry = _registry(request)
    card, _ = registry.card(name)
    async with registry.use(name) as engine:
        family = engine.checkpoint.model_type
        shown = Shown(
            modelfile="",
            parameters="",
            template="",
            details=_details(request, card),
            model_info={
                "general.architecture": family,
                f"{family}.context_length": engine.tokenizer.max_tokens,
                f"{family}.embedding_length": engine.dimensions,
            },
            capabilities=["embedding"],
            modified_at=_when(request),
        )
    return JsonResponse(msgspec.json.encode(shown))


routes = [
    Endpoint("GET", "/", root, answer="text/plain"),
    Endpoint("GET", "/api/version", version, answer=Version),
    Endpoint("GET", "/api/tags", list_tags, answer=Tags),
    Endpoint("POST", "/api/show", show, body=ShowBody, answer=Shown),
    Endpoint(
        "POST", "/api/embed", create_embeddings, body=OllamaEmbedBody, answer=OllamaEmbedAnswer
    ),
    Endpoint("POST", "/api/embeddings", create_embedding, body=OldBody, answer=OldAnswer),
]


def _registry(request: Request) -> Registry:
    return request.app.state.registry


def _details(request: Request, card: Card) -> Details:
    engine = _registry(request).engines().get(card.id)
    family = engine.checkpoint.model_type if engine else ""
    return Details("safetensors", family, [family] if family else [], "", "")


def _when(request: Request) -> str:
    return datetime.fromtimestamp(request.app.state.started, UTC).isoformat()
