"""Traces for OpenTelemetry, if an operator names a collector: a request, and where its time went.

Spans are made when a request is over, from what was measured anyway, and sent by a thread of their
own, as OTLP's JSON over HTTP. A trace costs its request next to nothing, and a collector that is
down costs traces.
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
"""For so long, requests are gathered into one message."""
MOST_WAITING = 10_000
"""Requests; of those that come while so many wait there is no trace."""
SEND_SECONDS = 5.0
PARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""The `traceparent` header: https://www.w3.org/TR/trace-context/."""
INTERNAL, SERVER, ERROR = 1, 2, 2  # kinds of span; status
log = logging.getLogger(__name__)


class Traces:
    """Sends to one collector; `lost` counts the requests whose traces did not get there."""

    def __init__(self, endpoint: str, version: str) -> None:
        """Raises `CardsError` if the endpoint is no URL of HTTP."""
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
        """Trace a request that is over. On the event loop."""
        if not self._requests:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._flush)
        self._requests.append(request)

    def close(self) -> None:
        """Send what waits, if that is soon done."""
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
            except OSError as error:  # urllib's own errors too
                if works:
                    log.warning("traces cannot be sent to %s: %s", self._url, error)
                works = False
                with self._counting:
                    self.lost += len(requests)
            with self._counting:
                self._waiting -= len(requests)

    def _send(self, requests: list[Record]) -> None:
        clock = time.time() - time.perf_counter()
        found = [span for request in requests for span in spans(request, clock)]
        scope = {"name": "embedsvc", "version": self._version}
        resource = {"attributes": attributes({"service.name": "embedsvc"})}
        message = {
            "resourceSpans": [
                {"resource": resource, "scopeSpans": [{"scope": scope, "spans": found}]}
            ]
        }
        wanted = urllib.request.Request(  # noqa: S310 - HTTP only: see traces_url
            self._url, orjson.dumps(message), {"content-type": "application/json"}
        )
        urllib.request.urlopen(wanted, timeout=SEND_SECONDS).close()  # noqa: S310


def traces_url(endpoint: str) -> str:
    """Where a collector takes traces. Raises `CardsError`."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CardsError(f"otlp_endpoint: {endpoint} is no http:// or https:// URL")
    return endpoint if parts.path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def spans(
    request: Record, clock: float, random: Callable[[int], bytes] = os.urandom
) -> list[dict[str, Any]]:
    """A request and its parts in OTLP; none if whoever asked traces, but not this.

    `clock` is the time of day when `time.perf_counter` was 0.
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

    # A path that a client made up is none of the names by which spans are grouped.
    name = f"{request.method} {request.route}".rstrip()
    root = span(name, request.began, request.total, whole) | {"kind": SERVER}
    told = {
        "http.request.method": request.method,
        "http.response.status_code": request.status,
        "embedsvc.request_id": request.id.decode("latin-1"),
    }
    if request.route:
        told["http.route"] = request.route
    if request.model:
        told |= {"embedsvc.model": request.model, "embedsvc.texts": request.texts}
        told["embedsvc.tokens"] = request.tokens
    if request.refusal:
        told["error.type"] = request.refusal
    root["attributes"] = attributes(told)
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
    """Attributes in OTLP, whose 64-bit integers are text in JSON."""
    return [
        {
            "key": key,
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in values.items()
    ]
