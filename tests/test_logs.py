"""The log: one line for each request, whatever a client sends, and never what it sent."""

import asyncio
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from embedsvc.inference.encoder import Encoder
from embedsvc.settings import Settings
from embedsvc.telemetry.logs import (
    MOST_WAITING,
    Log,
    level_of,
    open_log,
    request_as_json,
    request_in_words,
    timestamp,
    within_line,
)
from embedsvc.telemetry.record import Record
from embedsvc.texts.item import Item
from embedsvc.web.app import create_app


@contextmanager
def logging_client(
    cards: Path, stream: Any, *, json: bool = True, level: str = "info", **settings: Any
) -> Iterator[TestClient]:
    """An app that logs to the stream; all is written at the end."""
    root = logging.getLogger()
    before = root.handlers, root.level
    log = open_log(stream, json=json, level=level)
    app = create_app(Settings(models=cards, backend="numpy", **settings), log.tell)
    try:
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            yield client
    finally:
        log.close()
        root.handlers, root.level = before
        logging.getLogger("embedsvc").setLevel(logging.NOTSET)
        logging.captureWarnings(False)


@pytest.fixture
def told(cards_file: Path) -> Callable[..., list[dict[str, Any]]]:
    """What is logged of what a function does with a client."""

    def tell(use: Callable[[TestClient], object], **settings: Any) -> list[dict[str, Any]]:
        stream = io.StringIO()
        with logging_client(cards_file, stream, **settings) as client:
            use(client)
        return [orjson.loads(line) for line in stream.getvalue().splitlines()]

    return tell


def embed(client: TestClient, **fields: object):
    return client.post("/v1/embeddings", json={"model": "org/tiny", "input": "hello"} | fields)


def test_a_request_is_one_line_that_says_what_it_cost(told) -> None:
    def use(client: TestClient) -> None:
        answer = embed(client, input=["a", "b c"])
        ids.append(answer.headers["x-request-id"])

    ids: list[str] = []
    (line,) = told(use)
    assert line["id"] == ids[0]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/embeddings", 200)
    assert (line["model"], line["texts"], line["tokens"]) == ("org/tiny", 2, 7)
    assert line["task"] == "embed"
    assert 0 < line["forward_ms"] < line["total_ms"]
    assert line["queue_ms"] + line["tokenize_ms"] + line["forward_ms"] <= line["total_ms"]
    assert line["level"] == "info"


def test_a_refusal_says_its_reason(told) -> None:
    (line,) = told(lambda client: embed(client, model="x"))
    assert (line["status"], line["refusal"], "model" in line) == (404, "model_not_found", False)


@pytest.mark.parametrize(
    ("level", "paths"),
    [
        ("debug", ["/health", "/v1/models"]),
        ("info", ["/v1/models"]),
        ("warning", []),
    ],
)
def test_the_level_says_what_is_logged(told, level: str, paths: list[str]) -> None:
    def use(client: TestClient) -> None:
        client.get("/health")
        client.get("/v1/models")

    assert [line["path"] for line in told(use, level=level)] == paths


def test_neither_text_nor_key_is_ever_logged(told, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, key, wrong = "xylophone", "sk-zebra-zebra-zebra", "sk-gnu-gnu-gnu-gnu"

    def fails(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        raise RuntimeError("broken")

    def use(client: TestClient) -> None:
        headers = {"authorization": f"Bearer {key}"}
        for fields in ({}, {"prompt": secret}, {"input": [secret, ""]}, {"model": 7}):
            body = {"model": "org/tiny", "input": secret} | fields
            client.post("/v1/embeddings", json=body, headers=headers)
            client.post("/v1/embeddings", json=body, headers={"api-key": wrong})
        client.post("/v1/embeddings", content=f'{{"input": "{secret}', headers=headers)
        client.get(f"/v1/models?key={key}&input={secret}", headers=headers)
        monkeypatch.setattr(Encoder, "run", fails)
        client.post(
            "/v1/embeddings",
            json={"model": "org/tiny", "input": f"{secret} {secret}"},
            headers=headers,
        )

    text = orjson.dumps(told(use, level="debug", api_keys=(key,))).decode()
    assert text.count('"path"') == 11
    assert "RuntimeError: broken" in text
    for word in (secret, "zebra", "gnu"):
        assert word not in text


@pytest.mark.parametrize("json", [True, False])
def test_no_path_or_request_id_can_forge_a_line(cards_file: Path, json: bool) -> None:
    stream = io.StringIO()
    with logging_client(cards_file, stream, json=json) as client:
        client.get("/x%0A2026-01-01T00:00:00.000Z error forged%0D%1b[2K%E2%80%A8y")
        client.get("/v1/models", headers={"x-request-id": 'a" 200 forged'})
        client.get("/" + "long" * 1000)
    text = stream.getvalue()
    assert text.count("\n") == len(text.splitlines()) == 3
    assert not set(text) & {"\r", "\x1b", "\u2028"}
    assert max(map(len, text.splitlines())) < 500
    assert not [line for line in text.splitlines() if "forged" in line and "\\n" not in line]


@given(st.text())
def test_whatever_a_path_is_its_line_is_one_and_printable(path: str) -> None:
    request = Record(0.0, b"id", path, path)
    for write in (request_as_json, request_in_words):
        assert write(request, "now").removesuffix("\n").isprintable()
    assert within_line(path).isprintable()
    assert orjson.loads(request_as_json(request, "now"))["method"] == within_line(path)


def test_times_are_in_utc_to_the_millisecond() -> None:
    assert timestamp(1e9) == "2001-09-09T01:46:40.000Z"
    assert timestamp(1e9 + 0.9999) == "2001-09-09T01:46:40.999Z"


def test_a_bug_is_logged_with_its_trace_and_no_line_of_it_can_pass_for_another(
    cards_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        raise RuntimeError("first\n2026-01-01T00:00:00.000Z error forged")

    stream = io.StringIO()
    with logging_client(cards_file, stream, json=False) as client:
        monkeypatch.setattr(Encoder, "run", fails)
        assert embed(client).status_code == 500
    lines = stream.getvalue().splitlines()
    entries = [line for line in lines if not line.startswith("  | ")]
    assert len(entries) == 2
    assert "a text of 3 tokens failed" in entries[0]
    assert "POST /v1/embeddings 500 embedding_failed org/tiny" in entries[1]
    assert any("forged" in line for line in lines)


@pytest.mark.parametrize("json", [True, False])
def test_no_entry_grows_with_what_a_client_sends(
    cards_file: Path, json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        raise ValueError("x" * 100_000 + "\x9b31m\u202e")

    def deep(*_: object, depth: int = 300, **__: object) -> None:
        if depth:
            deep(depth=depth - 1)
        raise LookupError("y" * 100_000)

    stream = io.StringIO()
    with logging_client(cards_file, stream, json=json) as client:
        monkeypatch.setattr(Encoder, "run", fails)
        client.post("/v1/embeddings", json={"model": "embed", "input": "hello"})
        monkeypatch.setattr("embedsvc.web.dialects.openai.read_request", deep)
        path = "/v1/embeddings?" + "z" * 20_000
        assert client.post(path, content=b"[" * 700).status_code == 500
        client.get("/" + "%0A%1B" * 9000)
        client.get("/" + "a" * 30_000)
        logging.getLogger("embedsvc").error("%s", "w" * 100_000)
        logging.getLogger("embedsvc").error("%s", "line\n" * 100_000)
    said = stream.getvalue()
    assert "LookupError" in said
    assert "ValueError" in said
    assert "characters left out" in said
    assert "lines left out" in said
    assert len(said) < 100_000
    assert all(line.isprintable() for line in said.splitlines())


@pytest.mark.parametrize("path", ["/" + "%0A%1B" * 5000, "/" + "a" * 20_000, "/%E2%80%AE"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_answer_repeats_a_path_that_is_long_or_cannot_be_shown(
    client: TestClient, path: str, method: str
) -> None:
    answer = client.request(method, path)
    message = answer.json()["error"]["message"]
    assert answer.status_code == 404
    assert len(message) < 2500
    assert message.isprintable()


def test_failures_matter_more_than_probes() -> None:
    def level(route: str, status: int) -> int:
        request = Record(0.0, b"id", "GET", route)
        request.route, request.status = route, status
        return level_of(request)

    assert level("/ready", 200) < level("/v1/models", 200) < level("/ready", 503)
    assert level("/v1/models", 503) < level("/v1/models", 500)


class Slow(io.StringIO):
    """A stream whose reader has stopped reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = Event()

    def write(self, text: str) -> int:
        self.reads.wait()
        return super().write(text)


def test_who_reads_the_log_slowly_holds_up_nobody_and_what_is_lost_is_counted(
    cards_file: Path,
) -> None:
    stream = Slow()
    log = Log(stream, json=True, level="info")

    async def main() -> None:
        for _ in range(MOST_WAITING + 100):
            log.tell(Record(0.0, b"id", "GET", "/"))

    asyncio.run(main())
    log._flush_requests()
    assert log.lost > 0
    stream.reads.set()
    log.close()


class Full(io.StringIO):
    """A disk without room."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_loses_lines_and_nothing_else(cards_file: Path) -> None:
    stream = Full()
    with logging_client(cards_file, stream) as client:
        for _ in range(3):
            assert embed(client).status_code == 200
        log = logging.getLogger().handlers[0]
    assert isinstance(log, Log)
    assert log.lost == 3


def test_what_libraries_warn_of_is_logged_and_what_they_chat_of_is_not(told) -> None:
    def use(_: TestClient) -> None:
        logging.getLogger("some.library").info("chat")
        logging.getLogger("some.library").warning("trouble %s", "a\nb")

    (line,) = told(use, level="debug")
    assert (line["message"], line["logger"]) == ("trouble a\nb", "some.library")
    assert sys.stderr is not None
