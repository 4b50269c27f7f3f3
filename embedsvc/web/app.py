"""The application: its routes, what it opens when it starts, and how its errors are answered."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from embedsvc.bounds import ANSWERS_IN_FLIGHT, BODIES_IN_FLIGHT
from embedsvc.catalog.cards_file import find_cards_file, read_cards
from embedsvc.errors import NoRoute, RequestError
from embedsvc.serving.metrics import Metric, Metrics, gauge
from embedsvc.serving.registry import open_registry
from embedsvc.serving.watchdog import Watch
from embedsvc.settings import Settings
from embedsvc.telemetry.record import current
from embedsvc.web.admin import activity, api_docs, dashboard, health, instances
from embedsvc.web.budget import InFlight
from embedsvc.web.dialects import (
    cohere,
    exo,
    exo_cluster,
    infinity,
    ollama,
    openai,
    pooling,
    rerank,
    score,
    tei,
    tei_scores,
    voyage,
)
from embedsvc.web.dialects.dialect import spoken
from embedsvc.web.middleware import Edge, Tell
from embedsvc.web.refusals import write_error


def create_app(settings: Settings, tell: Tell | None = None) -> Starlette:
    """The application. `tell` is called when a request is over.

    Its lifespan opens the device and loads the models, and raises `SetupError`.
    """
    metrics = Metrics()
    held = InFlight(
        bodies=BODIES_IN_FLIGHT * settings.max_body_bytes,
        answers=ANSWERS_IN_FLIGHT,
    )
    metrics.read_also(lambda: _held_metrics(held))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        cards = read_cards(find_cards_file(settings.models))
        async with open_registry(cards, settings) as registry:
            app.state.registry = metrics.registry = registry
            app.state.started = int(time.time())
            app.state.watch = watch = Watch(registry, hang_seconds=settings.hang_seconds)
            metrics.read_also(lambda: _watch_metrics(watch))
            with watch.watching():
                yield

    handlers: dict[Any, Any] = {  # each function takes the error that it stands beside
        RequestError: _refused,
        HTTPException: _no_route,
    }
    app = Starlette(
        routes=[
            *openai.routes,
            *ollama.routes,
            *tei.routes,
            *cohere.routes,
            *pooling.routes,
            *rerank.routes,
            *score.routes,
            *tei_scores.routes,
            *voyage.routes,
            *infinity.routes,
            *instances.routes,
            *exo.routes,
            *exo_cluster.routes,
            *activity.routes,
            *dashboard.routes,
            *api_docs.routes,
            *health.routes,
        ],
        lifespan=lifespan,
    )
    # Starlette would build this stack itself, with its `ServerErrorMiddleware` outside. `Edge`
    # answers bugs instead: in the shape of each dialect, and with a request id.
    app.middleware_stack = Edge(
        ExceptionMiddleware(app.router, handlers), settings, metrics, held, tell
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.node_id = os.urandom(16).hex()
    app.state.metrics = metrics
    app.state.in_flight = held
    app.state.stopping = asyncio.Event()
    return app


def _watch_metrics(watch: Watch) -> Iterator[Metric]:
    yield gauge(
        "device_busy_seconds",
        "How long the oldest piece of work has been on the device.",
        [],
        [([], watch.busy_seconds)],
    )
    meaning = "1 while nothing is late, hangs or is broken."
    yield gauge("well", meaning, [], [([], float(watch.well))])


def _held_metrics(held: InFlight) -> Iterator[Metric]:
    meaning = "Bodies of requests in flight, less the small ones."
    yield gauge("body_bytes", meaning, [], [([], float(held.bodies.used))])
    meaning = "Long answers that are being written, or wait to be read."
    yield gauge("answer_bytes", meaning, [], [([], float(held.answers.used))])


async def _refused(request: Request, error: RequestError) -> Response:
    record = current.get()
    if record is not None:
        record.refusal = error.reason
    body = write_error(error, request.scope["path"], spoken(request))
    return Response(body, error.status, headers=error.headers, media_type="application/json")


async def _no_route(request: Request, error: HTTPException) -> Response:
    """Starlette's own 404 and 405, in the words of OpenAI's API."""
    allow = None
    if error.status_code == 405:
        matching = [r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE]
        allow = ", ".join(sorted({method for route in matching for method in route.methods}))
    return await _refused(request, NoRoute(request.method, request.url.path, allow=allow))
