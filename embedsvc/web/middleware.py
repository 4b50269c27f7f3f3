"""What every request goes through, whatever its path.

Paths are tidied and callers are checked. Every answer, also one that refuses, gets a request id,
the time that it took, and the headers that browsers look for.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from typing import Any, Protocol

from embedsvc.errors import BadRequest, BodyTooLarge, RequestError
from embedsvc.serving.metrics import Metrics
from embedsvc.settings import Settings
from embedsvc.telemetry.record import Record, current
from embedsvc.web.access import DASHBOARD, Access
from embedsvc.web.budget import InFlight, in_flight
from embedsvc.web.refusals import write_error
from embedsvc.wording.plain import shown

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

VERSION = (b"openai-version", b"2020-10-01")
JSON = (b"content-type", b"application/json")
SANE_ID = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)
SLASHES = re.compile("/{2,}")
ALLOW = b"access-control-allow-origin"
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
    (b"access-control-max-age", b"600"),
    (b"vary", b"Origin, Access-Control-Request-Headers"),
]
ENDS = (GeneratorExit, KeyboardInterrupt, SystemExit)
ANY_HEADERS = b"authorization, content-type, api-key, x-api-key, x-request-id"
log = logging.getLogger(__name__)


class Tell(Protocol):
    """What is called with the record of each request that is over, to log it or to trace it."""

    def __call__(self, record: Record, /) -> None: ...


class Edge:
    """ASGI middleware around the whole application. There is one object for a server's life.

    It is not one of Starlette's: `BaseHTTPMiddleware` runs each request in a task of its own and
    passes its answer through a queue, which takes 95 microseconds of each request, and
    `ServerErrorMiddleware` knows no request ids and catches no panics of libraries.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        metrics: Metrics,
        held: InFlight,
        tell: Tell | None,
    ) -> None:
        """`held` counts what requests in flight hold. `tell` is called when a request is over."""
        self._app = app
        self._held = held
        self._access = Access(settings)
        self._metrics = metrics
        self._tell = tell
        self._max_body_bytes = settings.max_body_bytes
        self._digits = len(str(settings.max_body_bytes))
        self._prefix = b"req_" + os.urandom(10).hex().encode()
        self._numbers = count()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        path: str = scope["path"]
        if path[-1:] == "/" or "//" in path:
            path = scope["path"] = SLASHES.sub("/", path).rstrip("/") or "/"
        if path == "/" and _is_browser(scope["method"], headers):
            path = scope["path"] = DASHBOARD
        added = self._answer_headers(headers)
        record = Record(began, added[0][1], scope["method"], path)
        if b"traceparent" in headers:
            record.traceparent = headers[b"traceparent"]
        current.set(record)
        in_flight.set(self._held)
        scope["named_headers"] = headers
        if "transport" in scope:
            record.hang_up = scope["transport"].abort

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                spent = b"%d" % ((time.perf_counter() - began) * 1000)
                message["headers"] += [*added, (b"openai-processing-ms", spent)]
            return send(message)

        try:
            refused = self._access.refusal(path, headers) or self._too_large(headers)
            if len(headers) != len(scope["headers"]):
                refused = _contradictory(scope["headers"]) or refused
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                allowed = any(name == ALLOW for name, _ in added)
                await _preflight(path, headers, refused, allowed, send_with_headers)
            elif refused is not None:
                record.refusal = refused.reason
                await _refuse(path, refused, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # web/budget.py cancels a request to make room for others: that is answered 429.
            if record.gave_way is None or record.status:
                raise
            task: asyncio.Task[Any] | None = asyncio.current_task()
            if task is not None:
                task.uncancel()
            record.refusal = record.gave_way.reason
            await _refuse(path, record.gave_way, send_with_headers)
        except BaseException as error:
            # This is a bug, or a panic of a library in another language, which is no `Exception`.
            # Whatever can be expected to go wrong is a `RequestError`, and was answered before.
            if record.status or isinstance(error, ENDS):
                raise
            identity = record.id.decode("latin-1")
            log.exception("%s %s failed, request %s", scope["method"], shown(path), identity)
            failed = RequestError(
                "The server had an error while processing your request. Its log says more, "
                "under this answer's x-request-id."
            )
            record.refusal = "bug"
            await _refuse(path, failed, send_with_headers)
        finally:
            record.total = time.perf_counter() - began
            self._held.release(record)
            self._metrics.count(record)
            if self._tell is not None:
                self._tell(record)

    def _too_large(self, headers: dict[bytes, bytes]) -> RequestError | None:
        """The refusal of a body whose headers say that it is too large."""
        length = headers.get(b"content-length", b"")
        if len(length) >= self._digits and length.isdigit() and int(length) > self._max_body_bytes:
            return BodyTooLarge(self._max_body_bytes)
        return None

    def _answer_headers(self, headers: dict[bytes, bytes]) -> HeaderList:
        identity = headers.get(b"x-request-id")
        if identity is None or not SANE_ID.fullmatch(identity):
            identity = b"%b%012x" % (self._prefix, next(self._numbers))
        added = [(b"x-request-id", identity), VERSION]
        origin = headers.get(b"origin")
        if origin is not None and self._access.allows(origin, headers.get(b"host", b"")):
            added += [
                (ALLOW, origin),
                (b"access-control-expose-headers", b"*, Authorization"),
                (b"vary", b"Origin"),
            ]
        return added


def _contradictory(headers: HeaderList) -> RequestError | None:
    """The refusal of a request that says twice to which host it goes, or from which origin."""
    names = [name for name, _ in headers]
    for name in (b"host", b"origin"):
        if names.count(name) > 1:
            return BadRequest(f"Your request has several headers '{name.decode()}'.")
    return None


def _is_browser(method: str, headers: dict[bytes, bytes]) -> bool:
    """Whether somebody wants to see a page. Ollama's clients ask `/` whether the server runs."""
    return method in ("GET", "HEAD") and b"text/html" in headers.get(b"accept", b"")


async def _preflight(
    path: str,
    headers: dict[bytes, bytes],
    refused: RequestError | None,
    allowed: bool,
    send: Send,
) -> None:
    """Answer a browser that asks what it may send. It brings no key yet.

    `allowed` says whether the page may read answers. It may then call a server of this network.
    """
    if refused is not None and refused.status != 401:
        await _refuse(path, refused, send)
        return
    asked_for = headers.get(b"access-control-request-headers", ANY_HEADERS)
    start = [*PREFLIGHT, (b"access-control-allow-headers", asked_for)]
    if b"access-control-request-private-network" in headers and allowed:
        start.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": start})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(path: str, error: RequestError, send: Send) -> None:
    body = write_error(error, path)
    extra = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    start = [JSON, (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": error.status, "headers": start})
    await send({"type": "http.response.body", "body": body})
