"""OpenAI's routes for embeddings and models, at all paths where clients look for them.

Azure's clients name the model in the path, and some clients leave out the /v1.
"""

from collections.abc import Sequence
from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import ModelNotFound
from embedsvc.serving.embedded import Embedded
from embedsvc.serving.outline import Outline, downloaded
from embedsvc.texts.requests import ComponentType, EmbeddingRequest
from embedsvc.web.answers import Form
from embedsvc.web.dialects.openai_answer import chunk_rows, write_embeddings
from embedsvc.web.dialects.openai_request import read_request
from embedsvc.web.dialects.openai_schema import (
    CAPABILITIES,
    DeploymentBody,
    EmbeddingAnswer,
    EmbeddingBody,
    Model,
    ModelList,
    ModelsQuery,
)
from embedsvc.web.embedding import answer_embeddings
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_bytes
from embedsvc.web.state import registry_of, state_of


async def create_embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`: vectors of texts."""
    asked = read_request(
        await read_bytes(request),
        model=request.path_params.get("model"),
        max_inputs=state_of(request).settings.max_inputs,
    )
    return await answer_embeddings(request, asked, partial(_write, asked), forms=_forms(asked))


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: every id, alias and id with a prompt, since clients pick from this list."""
    registry = registry_of(request)
    models = [model_answer(request, name) for name in registry.names()]
    if request.query_params.get("status") == "downloaded":  # as exo's clients ask
        cards = [*registry.cards.by_id.values()]
        here = await registry.look_up(lambda: downloaded(cards))
        models = [model for model in models if model.root in here]
    return JsonResponse(msgspec.json.encode(ModelList("list", models)))


async def get_model(request: Request) -> Response:
    """`GET /v1/models/{id}`: one model, whose id may hold slashes."""
    name: str = request.path_params["id"]
    try:
        model = model_answer(request, name)
    except ModelNotFound as error:
        error.field = "model"
        raise
    return JsonResponse(msgspec.json.encode(model))


def model_answer(request: Request, name: str) -> Model:
    """A model as clients see it: what its card leaves out is known once it has been loaded."""
    registry = registry_of(request)
    card, _ = registry.card(name)
    known = registry.description(card)
    outline = registry.outlines.known(card) or Outline()
    stated = card.pooling if isinstance(card.pooling, str) else None
    return Model(
        id=name,
        object="model",
        created=state_of(request).started,
        owned_by="embedsvc",
        root=card.id,
        state=registry.state(card),
        tasks=[*registry.tasks(card)],
        dimensions=known.dimensions or None if known else None,  # none: it gives no vectors
        max_tokens=known.max_tokens if known else card.max_tokens,
        architecture=known.architecture if known else None,
        pooling=known.pooling or None if known else stated,
        pooling_source=known.pooling_source or None if known else None,
        dtype=known.dtype if known else None,
        prompts=known.prompts if known else card.prompts or {},
        fingerprint=known.fingerprint if known else None,
        hugging_face_id=card.id,
        name=name.rpartition("/")[2],
        context_length=outline.max_tokens,
        storage_size_megabytes=round(outline.stored / (1 << 20)),
        is_custom=card.ad_hoc,
        family=outline.model_type,
        quantization=outline.quantization,
        capabilities=[CAPABILITIES[task] for task in registry.tasks(card)],
    )


def _forms(asked: EmbeddingRequest) -> list[Form]:
    """The forms that each vector is written in."""
    dtypes: Sequence[ComponentType] = (
        [asked.dtypes] if isinstance(asked.dtypes, str) else asked.dtypes
    )
    return [(dtype, asked.encoding_format) for dtype in dtypes]


async def _write(asked: EmbeddingRequest, embedded: Embedded) -> list[bytes]:
    return await write_embeddings(
        embedded.vectors,
        model=asked.model,
        tokens=embedded.tokens,
        encoding_format=asked.encoding_format,
        dtypes=asked.dtypes,
        chunks=chunk_rows(embedded.chunks),
        sparse=embedded.sparse,
        token_name=embedded.token_name or str,
    )


def _at(base: str) -> list[Endpoint]:
    return [
        _embeddings(f"{base}/embeddings"),
        Endpoint("GET", f"{base}/models", list_models, query=ModelsQuery, answer=ModelList),
        Endpoint("GET", f"{base}/models/{{id:path}}", get_model, answer=Model),
    ]


def _embeddings(path: str) -> Endpoint:
    body = DeploymentBody if "{model" in path else EmbeddingBody
    return Endpoint("POST", path, create_embeddings, body=body, answer=EmbeddingAnswer)


routes = [
    *_at("/v1"),
    *_at(""),
    *_at("/openai/v1"),
    *_at("/infinity"),
    _embeddings("/openai/deployments/{model:path}/embeddings"),
    _embeddings("/v1/engines/{model:path}/embeddings"),
]
