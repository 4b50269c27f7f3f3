"""Traces for OpenTelemetry, where an operator names a collector: where the time of requests went.

Spans are made when a request is over, from what was measured anyway. A thread of their own sends
them as OTLP's JSON over HTTP. A trace costs its request next to nothing, and a collector that is
down costs only traces.
"""

import asyncio
import logging
import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import orjson

from embedsvc.errors import CardsError
from embedsvc.telemetry.record import Record

GATHER_SECONDS = 1.0
"""How long requests are gathered into one message."""
MOST_WAITING = 10_000
"""Requests whose traces may wait to be sent. Of requests beyond that there is no trace."""
SEND_SECONDS = 5.0
"""How long a collector may take."""
PARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""The `traceparent` header: https://www.w3.org/TR/trace-context/."""
INTERNAL, SERVER = 1, 2
"""OTLP's numbers of kinds of spans."""
ERROR = 2
"""OTLP's number of the status of a span that failed."""
log = logging.getLogger(__name__)


class Traces:
    """Sends traces to one collector. `lost` counts the requests whose traces did not arrive."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Raises `CardsError` if the endpoint is not a URL of HTTP."""
        self.lost = 0
        self._url = traces_url(endpoint)
        self._version = version
        self._requests: list[Record] = []
        self._waiting = 0
        self._counting = threading.Lock()
        self._queue: SimpleQueue[list[Record] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, name="traces", daemon=True)
        self._thread.start()

    def tell(self, request: Record) -> None:
        """Trace a request that is over. To be called on the event loop."""
        if not self._requests:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
        self._requests.append(request)

    def close(self) -> None:
        """Send what waits, and return after a second at most."""
        self._flush()
        self._queue.put(None)
        self._thread.join(1)

    def _flush(self) -> None:
        requests, self._requests = self._requests, []
        with self._counting:
            if self._waiting + len(requests) > MOST_WAITING:
                self.lost += len(requests)
                return
            self._waiting += len(requests)
        if requests:
            self._queue.put(requests)

    def _send_all(self) -> None:
        works = True
        while (requests := self._queue.get()) is not None:
            try:
                self._send(requests)
                works = True
            except OSError as error:  # urllib's own errors are OSErrors too
                if works:
                    log.warning("traces cannot be sent to %s: %s", self._url, error)
                works = False
                with self._counting:
                    self.lost += len(requests)
            with self._counting:
                self._waiting -= len(requests)

    def _send(self, requests: list[Record]) -> None:
        clock = time.time() - time.perf_counter()
        all_spans = [span for request in requests for span in spans(request, clock)]
        scope = {"name": "embedsvc", "version": self._version}
        resource = {"attributes": attributes({"service.name": "embedsvc"})}
        message = {
            "resourceSpans": [
                {"resource": resource, "scopeSpans": [{"scope": scope, "spans": all_spans}]}
            ]
        }
        request = urllib.request.Request(  # noqa: S310 - HTTP only: see traces_url
            self._url, orjson.dumps(message), {"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=SEND_SECONDS).close()  # noqa: S310


def traces_url(endpoint: str) -> str:
    """The URL at which a collector takes traces. Raises `CardsError` if it is not one of HTTP.

    >>> traces_url("http://localhost:4318")
    'http://localhost:4318/v1/traces'
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CardsError(f"otlp_endpoint: {endpoint} is no http:// or https:// URL")
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def spans(
    request: Record, clock: float, random: Callable[[int], bytes] = os.urandom
) -> list[dict[str, Any]]:
    """OTLP's spans of one request: the whole and its stages. None if the caller's is not sampled.

    `clock` is the time since 1970 at which `time.perf_counter` was 0.
    """
    parent = PARENT.fullmatch(request.traceparent or b"")
    if parent is not None and not int(parent[3], 16) & 1:
        return []
    trace = parent[1].decode() if parent else random(16).hex()
    whole = random(8).hex()

    def span(name: str, began: float, seconds: float, identity: str) -> dict[str, Any]:
        start = int((clock + began) * 1e9)
        return {
            "traceId": trace,
            "spanId": identity,
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + int(seconds * 1e9)),
        }

    # Collectors group spans by name, so a path that a client made up is not part of one.
    name = f"{request.method} {request.route}".rstrip()
    root = span(name, request.began, request.total, whole) | {"kind": SERVER}
    values = {
        "http.request.method": request.method,
        "http.response.status_code": request.status,
        "embedsvc.request_id": request.id.decode("latin-1"),
    }
    if request.route:
        values["http.route"] = request.route
    if request.model:
        values |= {"embedsvc.model": request.model, "embedsvc.texts": request.texts}
        values |= {"embedsvc.tokens": request.tokens, "embedsvc.task": request.task or ""}
    if request.refusal:
        values["error.type"] = request.refusal
    root["attributes"] = attributes(values)
    if request.status >= 500:
        root["status"] = {"code": ERROR}
    if parent is not None:
        root["parentSpanId"] = parent[2].decode()
    parts = [
        ("tokenize", request.tokenized - request.tokenize, request.tokenize),
        ("queue", request.queued, request.queue),
        ("forward", request.queued + request.queue, request.forward),
    ]
    return [root] + [
        span(name, began, seconds, random(8).hex()) | {"parentSpanId": whole}
        for name, began, seconds in parts
        if seconds
    ]


def attributes(values: dict[str, str | int]) -> list[dict[str, Any]]:
    """Attributes as OTLP writes them in JSON, where 64-bit integers are strings.

    >>> attributes({"model": "a", "texts": 2})[1]
    {'key': 'texts', 'value': {'intValue': '2'}}
    """
    return [
        {
            "key": key,
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in values.items()
    ]
