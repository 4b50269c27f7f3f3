"""Traces: what a collector is sent of a request, and that nobody else notices."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from starlette.testclient import TestClient

from embedsvc.errors import CardsError
from embedsvc.settings import Settings
from embedsvc.telemetry.record import Record
from embedsvc.telemetry.traces import MOST_WAITING, Traces, spans, traces_url
from embedsvc.web.app import create_app

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    """Takes what it is sent, as a collector would."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.messages: list[tuple[str, str, bytes]] = []

    @property
    def spans(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path, kind, body in self.messages:
            assert (path, kind) == ("/v1/traces", "application/json")
            (resource,) = orjson.loads(body)["resourceSpans"]
            assert values(resource["resource"]) == {"service.name": "embedsvc"}
            (scope,) = resource["scopeSpans"]
            found += scope["spans"]
        return found


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.messages.append((self.path, self.headers["content-type"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def values(span: dict[str, Any]) -> dict[str, Any]:
    """Attributes by name."""
    pairs = [(each["key"], each["value"]) for each in span["attributes"]]
    return {
        key: int(value["intValue"]) if "intValue" in value else value["stringValue"]
        for key, value in pairs
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def tracing(cards: Path, endpoint: str) -> Iterator[tuple[TestClient, Traces]]:
    traces = Traces(endpoint, "1")
    app = create_app(Settings(models=cards, backend="numpy"), traces.tell)
    with TestClient(app, base_url="http://localhost") as client:
        yield client, traces
    traces.close()


def test_a_request_is_a_span_and_where_its_time_went_are_spans_within_it(
    collector: Collector, cards_file: Path
) -> None:
    with tracing(cards_file, f"http://127.0.0.1:{collector.server_port}") as (client, _):
        body = {"model": "org/tiny", "input": ["a secret", "b"]}
        answer = client.post("/v1/embeddings", json=body)
    root, *parts = collector.spans
    assert (root["name"], root["kind"]) == ("POST /v1/embeddings", 2)
    assert "parentSpanId" not in root
    told = values(root)
    assert told["http.route"] == "/v1/embeddings"
    assert told["http.response.status_code"] == 200
    assert told["embedsvc.request_id"] == answer.headers["x-request-id"]
    assert (told["embedsvc.model"], told["embedsvc.texts"]) == ("org/tiny", 2)
    assert told["embedsvc.task"] == "embed"
    assert told["embedsvc.tokens"] == answer.json()["usage"]["prompt_tokens"]

    assert [part["name"] for part in parts] == ["tokenize", "queue", "forward"]
    began, ended = int(root["startTimeUnixNano"]), int(root["endTimeUnixNano"])
    for part in parts:
        assert part["traceId"] == root["traceId"]
        assert part["parentSpanId"] == root["spanId"]
        start, end = int(part["startTimeUnixNano"]), int(part["endTimeUnixNano"])
        assert began <= start <= end <= ended
        began = start
    assert len({span["spanId"] for span in collector.spans}) == 4
    assert b"secret" not in b"".join(body for _, _, body in collector.messages)


def test_the_caller_s_trace_is_gone_on_with(collector: Collector, cards_file: Path) -> None:
    with tracing(cards_file, f"http://127.0.0.1:{collector.server_port}/") as (client, _):
        client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})  # not sampled
    (root,) = collector.spans
    assert (root["traceId"], root["parentSpanId"]) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "header",
    [b"", b"x", b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01", b'00-"\r\n-01', b"0" * 9999],
)
def test_a_header_that_is_none_begins_a_trace(header: bytes) -> None:
    request = Record(0.0, b"id", "GET", "/x\n")
    request.traceparent = header
    numbers = count(1)
    (root,) = spans(request, 1e9, lambda size: next(numbers).to_bytes(size))
    assert (root["traceId"], root["spanId"]) == (f"{1:032x}", f"{2:016x}")
    assert "parentSpanId" not in root
    assert root["name"] == "GET"  # and not the path that somebody made up
    assert root["startTimeUnixNano"] == str(10**18)


def test_failures_are_told_as_such() -> None:
    request = Record(0.0, b"id", "POST", "/v1/embeddings")
    request.status, request.refusal = 500, "embedding_failed"
    (root,) = spans(request, 0.0)
    assert root["status"] == {"code": 2}
    assert values(root)["error.type"] == "embedding_failed"


def test_a_collector_that_is_down_costs_traces_and_nothing_else(
    cards_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracing(cards_file, "http://127.0.0.1:9") as (client, traces):
        for _ in range(3):
            assert client.get("/v1/models").status_code == 200
    assert traces.lost == 3
    assert caplog.text.count("traces cannot be sent") == 1


def test_more_than_can_be_sent_is_lost() -> None:
    traces = Traces("http://127.0.0.1:9", "1")
    traces._requests = [Record(0.0, b"id", "GET", "/")] * (MOST_WAITING + 1)
    traces._flush()
    assert traces.lost == MOST_WAITING + 1
    traces.close()


def test_an_endpoint_is_a_url() -> None:
    assert traces_url("http://box:4318") == "http://box:4318/v1/traces"
    assert traces_url("https://box/otlp/v1/traces") == "https://box/otlp/v1/traces"
    for wrong in ("box:4318", "file:///etc/passwd", "http://", ""):
        with pytest.raises(CardsError, match="otlp_endpoint"):
            traces_url(wrong)
