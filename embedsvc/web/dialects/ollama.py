"""Ollama's routes, as far as its clients use them for embeddings.

As in Ollama, a text that is too long is cut unless `truncate` is false.
"""

import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest, RequestError
from embedsvc.serving.embedded import Embedded
from embedsvc.texts.requests import (
    Dimensions,
    EmbeddingRequest,
    Fields,
    ModelName,
    read_truncate,
)
from embedsvc.texts.truncation import Rule
from embedsvc.web.answers import write_vectors
from embedsvc.web.dialects.dialect import Dialect
from embedsvc.web.embedding import answer_embeddings, load_for_embeddings
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body
from embedsvc.web.state import registry_of, state_of

VERSION = "0.12.0"
"""The version of Ollama's API. Some clients refuse an older one."""
CUT = Rule("end", remedy='send "truncate": true')
"""Ollama embeds the beginning of a text that is too long."""


class OllamaEmbedBody(msgspec.Struct):
    """Ollama's options of its runner (`options`, `keep_alive`) are accepted, and change nothing."""

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
    """The body of Ollama's older route, which takes one text."""

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
    """Older clients say `name` in place of `model`."""

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


class OllamaError(msgspec.Struct):
    """Ollama's errors."""

    error: str


async def root(_request: Request) -> Response:
    """`GET /`: the words by which Ollama's clients know that somebody is there."""
    # Browsers get the dashboard from the same path.
    return PlainTextResponse("Ollama is running", headers={"vary": "accept"})


async def version(_request: Request) -> Response:
    """`GET /api/version`: the version of Ollama's API."""
    return JsonResponse(msgspec.json.encode(Version(VERSION)))


async def create_embeddings(request: Request) -> Response:
    """`POST /api/embed`: vectors of texts."""
    began = time.perf_counter()
    sent = await read_body(request, OllamaEmbedBody)
    inputs = [sent.input] if isinstance(sent.input, str) else sent.input or []
    if inputs in ([], [""]):  # clients ask for nothing to have the model loaded
        await load_for_embeddings(request, sent.model)
        return JsonResponse(msgspec.json.encode(OllamaEmbedAnswer(sent.model, [])))
    max_inputs = state_of(request).settings.max_inputs
    if len(inputs) > max_inputs:
        raise BadRequest(f"Invalid 'input': array length must be {max_inputs} or less.")
    asked = EmbeddingRequest(
        model=sent.model,
        inputs=inputs,
        dimensions=sent.dimensions,
        truncate=read_truncate(sent.truncate),
        otherwise=CUT,
    )
    return await answer_embeddings(request, asked, partial(_write, sent.model, began))


async def create_embedding(request: Request) -> Response:
    """`POST /api/embeddings`: the vector of one text."""
    sent = await read_body(request, OldBody)
    if not sent.prompt:
        await load_for_embeddings(request, sent.model)
        return JsonResponse(msgspec.json.encode(OldAnswer([])))
    asked = EmbeddingRequest(
        model=sent.model, inputs=[sent.prompt], otherwise=CUT, fields=Fields("prompt")
    )
    return await answer_embeddings(request, asked, _write_one)


async def list_tags(request: Request) -> Response:
    """`GET /api/tags`: the models."""
    registry = registry_of(request)
    tags: list[Tag] = []
    for name in registry.names():
        card, _ = registry.card(name)
        tags.append(
            Tag(
                name=name,
                model=name,
                modified_at=_started(request),
                size=0,
                digest=(card.sha256 or "").rjust(64, "0"),
                details=_details(request, card),
            )
        )
    return JsonResponse(msgspec.json.encode(Tags(tags)))


async def show(request: Request) -> Response:
    """`POST /api/show`: what is known of one model."""
    sent = await read_body(request, ShowBody)
    name = sent.model or sent.name
    if not name:
        raise BadRequest("you must provide a model parameter")
    registry = registry_of(request)
    card, _ = registry.card(name)
    async with registry.use(name) as engine:
        family = engine.checkpoint.model_type
        model_info: dict[str, Any] = {
            "general.architecture": family,
            f"{family}.context_length": engine.tokenizer.max_tokens,
        }
        embeds = "vector" in engine.heads
        if embeds:
            model_info[f"{family}.embedding_length"] = engine.dimensions
        shown = Shown(
            modelfile="",
            parameters="",
            template="",
            details=_details(request, card),
            model_info=model_info,
            capabilities=["embedding"] if embeds else [],
            modified_at=_started(request),
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


def write_error(error: RequestError) -> OllamaError:
    """An error as Ollama's clients read it."""
    return OllamaError(error.message)


OLLAMA = Dialect("ollama", ("/api",), OllamaError, write_error)


async def _write(model: str, began: float, embedded: Embedded) -> list[bytes]:
    """`began` is when the request came, by `time.perf_counter`."""
    answer = OllamaEmbedAnswer(
        model,
        [],
        total_duration=round((time.perf_counter() - began) * 1e9),
        load_duration=0,
        prompt_eval_count=embedded.tokens,
    )
    # The vectors go where this answer has its empty list.
    before, after = msgspec.json.encode(answer).rsplit(b"[]", 1)
    return [before, *await write_vectors(embedded.vectors), after]


async def _write_one(embedded: Embedded) -> bytes:
    body = {"embedding": embedded.vectors[0]}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _details(request: Request, card: Card) -> Details:
    engine = registry_of(request).engines().get(card.id)
    family = engine.checkpoint.model_type if engine else ""
    return Details("safetensors", family, [family] if family else [], "", "")


def _started(request: Request) -> str:
    """When the server started: the models have no time of their own that clients could use."""
    return datetime.fromtimestamp(state_of(request).started, UTC).isoformat()
