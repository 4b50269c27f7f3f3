"""What the server does just now, sent every second to clients that watch."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedsvc import __version__
from embedsvc.serving.metrics import Metrics
from embedsvc.serving.registry import Registry
from embedsvc.web.admin.instances import InstanceList, instances_answer
from embedsvc.web.admin.rates import Activity, compare, snapshot
from embedsvc.web.endpoint import Endpoint
from embedsvc.web.events import Events
from embedsvc.web.openapi import Stream

SECONDS = 1.0


class Now(msgspec.Struct):
    """One event. The first has no activity, because there is no second before it to compare
    with."""

    version: str
    backend: str
    dtype: str
    device: str
    instances: InstanceList
    activity: Activity | None


class Pulse:
    """The event of each second, made once for all clients that watch, and only while there are any.

    A client that reads slowly misses some: no event is kept for anybody.
    """

    def __init__(self, metrics: Metrics, registry: Registry) -> None:
        self._metrics = metrics
        self._registry = registry
        self._watchers = 0
        self._beating: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def events(self) -> AsyncIterator[bytes]:
        """The events from now on. The first comes at once."""
        self._watchers += 1
        try:
            yield self._write(None)
            if self._beating is None:
                self._beating = asyncio.create_task(self._beat())
            while True:
                yield await asyncio.shield(self._next)
        finally:
            self._watchers -= 1
            if not self._watchers and self._beating is not None:
                self._beating.cancel()
                self._beating = None

    async def _beat(self) -> None:
        before = snapshot(self._metrics)
        while True:
            await asyncio.sleep(SECONDS)
            now = snapshot(self._metrics)
            message = self._write(compare(before, now))
            before = now
            waited_for, self._next = self._next, asyncio.get_running_loop().create_future()
            waited_for.set_result(message)

    def _write(self, activity: Activity | None) -> bytes:
        ops = self._registry.device.ops
        instances = instances_answer(self._registry)
        now = Now(__version__, ops.name, ops.dtype, ops.device, instances, activity)
        return msgspec.json.encode(now)


async def watch(request: Request) -> Response:
    """`GET /v1/activity`: instances, and what was done, every second, as server-sent events."""
    state = request.app.state
    if not hasattr(state, "pulse"):
        state.pulse = Pulse(state.metrics, state.registry)
    return Events(request, state.pulse.events())


routes = [Endpoint("GET", "/v1/activity", watch, answer=Stream(Now))]
