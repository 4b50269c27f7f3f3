"""OpenAI's routes: embeddings and models."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedsvc.errors import ModelNotFound
from embedsvc.registry import Embedded, Registry
from embedsvc.schema import (
    EmbeddingRequest,
    read_request,
    write_embeddings,
    write_model,
    write_models,
    write_rows,
)

T = TypeVar("T")
CLIENT_GONE = 499  # nginx's number; nobody reads it
ROWS = 64
"""Vectors written in one turn of the event loop, which takes less than a millisecond."""


async def create_embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`."""
    wanted = read_request(await request.body())
    embedded = await _while_connected(request, _embed(request, wanted))
    if embedded is None:
        return Response(status_code=CLIENT_GONE)
    rows: list[bytes] = []
    for first in range(0, len(embedded.vectors), ROWS):
        vectors = embedded.vectors[first : first + ROWS]
        rows.append(write_rows(vectors, first=first, encoding_format=wanted.encoding_format))
        await asyncio.sleep(0)  # let others have a turn
    return _json(write_embeddings(rows, model=wanted.model, tokens=embedded.tokens))


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: every id and every alias, since clients pick from this list."""
    registry: Registry = request.app.state.registry
    return _json(write_models(registry.cards.by_name, request.app.state.started))


async def get_model(request: Request) -> Response:
    """`GET /v1/models/{id}`, where the id may hold slashes."""
    registry: Registry = request.app.state.registry
    name: str = request.path_params["id"]
    if name not in registry.cards.by_name:
        raise ModelNotFound(name, param="model")
    return _json(write_model(name, request.app.state.started))


routes = [
    Route("/v1/embeddings", create_embeddings, methods=["POST"]),
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{id:path}", get_model, methods=["GET"]),
]


async def _embed(request: Request, wanted: EmbeddingRequest) -> Embedded:
    registry: Registry = request.app.state.registry
    engine = await registry.engine(wanted.model)
    control = request.headers.get("cache-control", "").lower()
    return await engine.embed(
        wanted.texts,
        read_cache="no-cache" not in control,
        write_cache="no-store" not in control,
    )


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result; None, and the work cancelled, if the client hangs up first."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # once the body is read: the disconnect
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
