"""Routes for whoever watches the server: whether it lives, whether it is ready, what it counted."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedsvc.errors import Unavailable
from embedsvc.web.endpoint import Endpoint
from embedsvc.web.state import state_of


async def health(request: Request) -> Response:
    """`GET /health`: the process lives, and nothing in it hangs for good."""
    watch = state_of(request).watch
    if watch.over:
        raise Unavailable(watch.over)
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """`GET /ready`: the preloaded models are there, and those that are loaded compute."""
    watch = state_of(request).watch
    trouble = await watch.trouble()
    if trouble:
        raise Unavailable(trouble)
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """`GET /metrics`: what has been counted, for Prometheus."""
    found = state_of(request).metrics.write()
    return Response(found, media_type="text/plain; version=0.0.4; charset=utf-8")


routes = [
    Endpoint("GET", "/metrics", metrics, answer="text/plain"),
    Endpoint("GET", "/health", health, answer=dict[str, str]),
    Endpoint("GET", "/ready", ready, answer=dict[str, str]),
]
