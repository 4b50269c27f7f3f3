"""What the application keeps for its routes, with types: Starlette's `app.state` has none."""

import asyncio
from typing import Protocol

from starlette.requests import Request

from embedsvc.serving.metrics import Metrics
from embedsvc.serving.registry import Registry
from embedsvc.serving.watchdog import Watch
from embedsvc.settings import Settings
from embedsvc.web.budget import InFlight


class State(Protocol):
    """One for each server. `create_app` and its lifespan fill it."""

    settings: Settings
    metrics: Metrics
    in_flight: InFlight
    stopping: asyncio.Event
    """Set when the server stops, so that answers which never end by themselves do."""
    registry: Registry
    watch: Watch
    node_id: str
    """What exo's clients know this server by."""
    started: int
    """When the server started, in seconds since 1970."""


def state_of(request: Request) -> State:
    """The state of the server that a request came to."""
    return request.app.state


def registry_of(request: Request) -> Registry:
    """The models of the server that a request came to."""
    return state_of(request).registry
