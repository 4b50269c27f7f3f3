"""What the server does just now, told every second to whoever watches."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedsvc import __version__
from embedsvc.activity import Activity, compare, read
from embedsvc.instances.registry import Registry
from embedsvc.metrics import Metrics
from embedsvc.routes.endpoint import Endpoint
from embedsvc.routes.events import Events
from embedsvc.routes.instances import InstanceList, tell_all

SECONDS = 1.0


class Now(msgspec.Struct):
    """One event. The first has no activity: there is no second before it to tell of."""

    version: str
    backend: str
    dtype: str
    device: str
    instances: InstanceList
    activity: Activity | None


async def watch(request: Request) -> Response:
    """`GET /v1/activity`: instances, and what was done, every second, as server-sent events."""
    return Events(request, _every_second(request.app.state.metrics, request.app.state.registry))


routes = [Endpoint("GET", "/v1/activity", watch, answer="text/event-stream")]


async def _every_second(metrics: Metrics, registry: Registry) -> AsyncIterator[bytes]:
    ops = registry.device.ops
    before, activity = read(metrics), None
    while True:
        instances = tell_all(registry)
        now = Now(__version__, ops.name, ops.dtype, ops.device, instances, activity)
        yield msgspec.json.encode(now)
        await asyncio.sleep(SECONDS)
        reading = read(metrics)
        before, activity = reading, compare(before, reading)
