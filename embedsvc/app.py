"""The application: what is opened when it starts, its routes, and how its errors look."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.cards import find_cards, read_cards
from embedsvc.device import open_device
from embedsvc.errors import RequestError
from embedsvc.registry import Registry
from embedsvc.routes import openai, operations
from embedsvc.schema import write_error
from embedsvc.settings import Settings


def create_app(settings: Settings) -> Starlette:
    """The application. Its lifespan opens the device and loads the models: `SetupError` there."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        cards = read_cards(find_cards(settings.models))
        device = open_device(settings.backend)
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
        Exception: _unexpected,
    }
    app = Starlette(
        routes=[*openai.routes, *operations.routes],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _refused(_request: Request, error: RequestError) -> Response:
    return Response(
        write_error(error), error.status, headers=error.headers, media_type="application/json"
    )


async def _no_route(request: Request, error: HTTPException) -> Response:
    """Starlette's own 404 and 405, in OpenAI's words."""
    method, path = request.method, request.url.path
    message = f"Invalid URL ({method} {path})"
    if error.status_code == 405:
        message = (
            f"Not allowed to {method} on {path}. "
            "(HINT: Perhaps you meant to use a different HTTP method?)"
        )
    refused = RequestError(message)
    refused.status, refused.type = error.status_code, "invalid_request_error"
    refused.headers.update(error.headers or {})
    return await _refused(request, refused)


async def _unexpected(request: Request, _error: Exception) -> Response:
    """A bug: Starlette logs it with its traceback after this answer is sent."""
    failed = RequestError("The server had an error while processing your request.")
    return await _refused(request, failed)
