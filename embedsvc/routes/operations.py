"""Routes for whoever keeps the server running."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedsvc.errors import Unavailable
from embedsvc.metrics import write_metrics
from embedsvc.registry import Registry
from embedsvc.routes.endpoint import Endpoint


async def health(_request: Request) -> Response:
    """`GET /health`: the process lives and its event loop turns."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """`GET /ready`: the preloaded models are there and the device answers."""
    registry: Registry = request.app.state.registry
    if not await registry.ready():
        raise Unavailable("The model is not loaded or the device does not answer.")
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """`GET /metrics`: what has been counted, for Prometheus."""
    body = write_metrics(request.app.state.registry)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


routes = [
    Endpoint("GET", "/metrics", metrics, answer="text/plain"),
    Endpoint("GET", "/health", health, answer=dict[str, str]),
    Endpoint("GET", "/ready", ready, answer=dict[str, str]),
]
