"""OpenAI's routes, embeddings and models, at all paths where clients look for them.

Azure's clients name the model in the path, and some base URLs lack the /v1.
"""

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import ModelNotFound
from embedsvc.serving.registry import Registry
from embedsvc.texts.late_chunking import Chunk
from embedsvc.texts.requests import Dtype
from embedsvc.web.answers import Form, write_embeddings
from embedsvc.web.dialects.openai_schema import (
    ChunkRow,
    DeploymentBody,
    EmbeddingAnswer,
    EmbeddingBody,
    Model,
    ModelList,
    read_request,
)
from embedsvc.web.embedding import embed
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_bytes


async def create_embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`: vectors of texts."""
    wanted = read_request(
        await read_bytes(request),
        model=request.path_params.get("model"),
        max_inputs=request.app.state.settings.max_inputs,
    )
    dtypes: Sequence[Dtype] = [wanted.dtypes] if isinstance(wanted.dtypes, str) else wanted.dtypes
    forms: list[Form] = [(dtype, wanted.encoding_format) for dtype in dtypes]
    answer = await embed(request, wanted, forms)
    written = await write_embeddings(
        answer.embedded.vectors,
        model=wanted.model,
        tokens=answer.embedded.tokens,
        encoding_format=wanted.encoding_format,
        dtypes=wanted.dtypes,
        chunks=_chunk_rows(answer.embedded.chunks),
    )
    return JsonResponse(written, answer.headers)


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: every id, alias and id with a prompt, since clients pick from this list."""
    registry: Registry = request.app.state.registry
    models = [_model(request, name) for name in registry.names()]
    return JsonResponse(msgspec.json.encode(ModelList("list", models)))


async def get_model(request: Request) -> Response:
    """`GET /v1/models/{id}`: one model, whose id may hold slashes."""
    name: str = request.path_params["id"]
    try:
        model = _model(request, name)
    except ModelNotFound as error:
        error.field = "model"
        raise
    return JsonResponse(msgspec.json.encode(model))


def _at(base: str) -> list[Endpoint]:
    return [
        _embeddings(f"{base}/embeddings"),
        Endpoint("GET", f"{base}/models", list_models, answer=ModelList),
        Endpoint("GET", f"{base}/models/{{id:path}}", get_model, answer=Model),
    ]


def _embeddings(path: str) -> Endpoint:
    body = DeploymentBody if "{model" in path else EmbeddingBody
    return Endpoint("POST", path, create_embeddings, body=body, answer=EmbeddingAnswer)


routes = [
    *_at("/v1"),
    *_at(""),
    *_at("/openai/v1"),
    _embeddings("/openai/deployments/{model:path}/embeddings"),
    _embeddings("/v1/engines/{model:path}/embeddings"),
]


def _model(request: Request, name: str) -> Model:
    """What is not in a model's card is known once it has been loaded."""
    registry: Registry = request.app.state.registry
    card, _ = registry.card(name)
    known = registry.description(card)
    stated = card.pooling if isinstance(card.pooling, str) else None
    return Model(
        id=name,
        object="model",
        created=request.app.state.started,
        owned_by="embedsvc",
        root=card.id,
        state=registry.state(card),
        dimensions=known.dimensions if known else None,
        max_tokens=known.max_tokens if known else card.max_tokens,
        architecture=known.architecture if known else None,
        pooling=known.pooling if known else stated,
        prompts=known.prompts if known else card.prompts or {},
        fingerprint=known.fingerprint if known else None,
    )


def _chunk_rows(chunks: list[list[Chunk]] | None) -> list[ChunkRow] | None:
    if chunks is None:
        return None
    return [
        ChunkRow(index, chunk.start, chunk.end, chunk.tokens)
        for index, each in enumerate(chunks)
        for chunk in each
    ]
