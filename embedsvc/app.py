"""The application: what is opened when it starts, its routes, and how its errors look."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from embedsvc.access import Access
from embedsvc.answers import write_error
from embedsvc.cards import find_cards, read_cards
from embedsvc.device import open_device
from embedsvc.edge import Edge
from embedsvc.errors import NoRoute, RequestError
from embedsvc.registry import Registry
from embedsvc.routes import cohere, documents, ollama, openai, operations, tei
from embedsvc.settings import Settings


def create_app(settings: Settings) -> Starlette:
    """The application. Its lifespan opens the device and loads the models: `SetupError` there."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        cards = read_cards(find_cards(settings.models))
        device = open_device(settings.backend, settings.cores)
        registry = Registry(cards, device, settings)
        try:
            await registry.preload()
            app.state.registry = registry
            app.state.started = int(time.time())
            yield
        finally:
            await registry.close()
            device.close()

    handlers: dict[Any, Any] = {  # each takes the error it stands beside
        RequestError: _refused,
        HTTPException: _no_route,
    }
    app = Starlette(
        routes=[
            *openai.routes,
            *ollama.routes,
            *tei.routes,
            *cohere.routes,
            *documents.routes,
            *operations.routes,
        ],
        lifespan=lifespan,
    )
    # All there is around the routes: Starlette's layer for bugs is left out, `Edge` sees to them.
    app.middleware_stack = Edge(ExceptionMiddleware(app.router, handlers), Access(settings))
    app.router.redirect_slashes = False
    app.state.settings = settings
    return app


async def _refused(_request: Request, error: RequestError) -> Response:
    return Response(
        write_error(error), error.status, headers=error.headers, media_type="application/json"
    )


async def _no_route(request: Request, error: HTTPException) -> Response:
    """Starlette's own 404 and 405, in OpenAI's words."""
    allow = None
    if error.status_code == 405:
        matching = [r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE]
        allow = ", ".join(sorted({method for route in matching for method in route.methods}))
    return await _refused(request, NoRoute(request.method, request.url.path, allow=allow))
