"""Every error has its status, the shape of its route's dialect, and any answer's headers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import Encoder
from embedsvc.settings import Settings
from embedsvc.web.app import create_app
from tests.support.app import serve
from tests.support.error_shapes import (
    ALL,
    EMBEDDINGS,
    NOT_JSON,
    POSTS,
    endpoints,
    serve_with_limits,
    shaped,
)


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_with_limits(tmp_path_factory.mktemp("errors"), tiny_folder) as client:
        yield client


def test_there_is_no_answer_where_nothing_is(server: TestClient) -> None:
    shaped(server.get("/v1/nope"), 404, "Invalid URL (GET /v1/nope)")
    shaped(server.post("/v1//nope/", json={}), 404, "Invalid URL (POST /v1/nope)")
    shaped(server.get("/%ff%fe"), 404, "Invalid URL")
    for path in ("/api/nope", "/api/embed/nope", "/decode", "/v2/nope"):
        shaped(server.post(path, json={}), 404, f"Invalid URL (POST {path})")


def test_words_of_a_dialect_do_not_reach_beyond_its_paths(server: TestClient) -> None:
    for path in ("/apis", "/embedding", "/v1/embeds", "/v22/embed", "/information"):
        assert set(server.get(path).json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", sorted({path for _, path in ALL}))
def test_a_method_that_a_path_does_not_have_is_a_405(server: TestClient, path: str) -> None:
    # Some paths are below one that takes any: /models/add is a model's, too, to who asks for one.
    has = {route.method for route in endpoints() if route.path_regex.match(path)}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - has:
        answer = shaped(server.request(method, path), 405, f"Not allowed to {method} on {path}.")
        assert has <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a":' * 700])
def test_a_body_that_is_no_json_is_a_400(server: TestClient, path: str, body: bytes) -> None:
    shaped(server.post(path, content=body), 400, NOT_JSON)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", ["[]", "7", "null", '"text"'])
def test_a_body_that_is_no_object_is_a_400(server: TestClient, path: str, body: str) -> None:
    shaped(server.post(path, content=body), 400)


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_lacks_everything_is_a_400(server: TestClient, path: str) -> None:
    shaped(server.post(path, json={}), 400)


@pytest.mark.parametrize("path", POSTS)
def test_a_body_too_large_is_a_413(server: TestClient, path: str) -> None:
    shaped(server.post(path, content=b'{"x": "%b"}' % (b"a" * 5000)), 413, "limit is 5000 bytes")


@pytest.mark.parametrize("path", [*EMBEDDINGS, "/api/embed", "/api/embeddings", "/v2/embed"])
def test_an_unknown_model_is_a_404(server: TestClient, path: str) -> None:
    body = {"model": "none", "input": "a", "prompt": "a", "texts": ["a"]}
    answer = server.post(path.replace("org/tiny", "none"), json=body)
    said = "The model `none` does not exist or you do not have access to it."
    shaped(answer, 404, said, code="model_not_found")


def test_an_unknown_model_is_named_by_its_parameter(server: TestClient) -> None:
    answer = shaped(server.get("/v1/models/none"), 404, code="model_not_found")
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize(("method", "path"), ALL)
def test_a_bug_is_a_500_that_tells_nothing_and_is_logged_under_its_id(
    server: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
) -> None:
    for route in server.app.routes:  # type: ignore[attr-defined]
        monkeypatch.setattr(route, "handler", None)
    answer = server.request(method, path, headers={"x-request-id": "mine-1", "origin": "app://x"})
    shaped(answer, 500, "The server had an error while processing your request.")
    assert "NoneType" not in answer.text
    assert answer.headers["access-control-allow-origin"] == "app://x"
    assert f"{method} {path} failed, request mine-1" in caplog.text
    assert "Traceback" in caplog.text


class Panic(BaseException):
    """As a library in Rust raises one."""


def test_a_panic_of_a_library_is_a_500_too(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panics(*_: object, **__: object) -> None:
        raise Panic

    monkeypatch.setattr("embedsvc.web.dialects.openai.read_request", panics)
    answer = client.post("/v1/embeddings", json={"model": "org/tiny", "input": "hello"})
    shaped(answer, 500, "The server had an error while processing your request.")
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_model_that_fails_is_a_500(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise EmbeddingFailed("The model gave no finite, non-zero vector for this input.")

    monkeypatch.setattr(Encoder, "run", fails)
    for path in ("/v1/embeddings", "/api/embed", "/embed"):
        body = {"model": "org/tiny", "input": "hello", "inputs": "hello"}
        shaped(client.post(path, json=body), 500, "no finite, non-zero vector")


def test_a_full_queue_is_a_429_with_retry_after(cards_file: Path) -> None:
    with serve(models=cards_file, max_waiting_tokens=1) as client:
        registry = client.app.state.registry  # type: ignore[attr-defined]
        queue = next(iter(registry.engines().values())).batcher._queue
        queue.tokens = 10  # as if others waited
        answer = client.post("/v1/embeddings", json={"model": "embed", "input": "a"})
        queue.tokens = 0
    shaped(answer, 429, "Rate limit reached", kind="tokens", code="rate_limit_exceeded")
    assert 1 <= int(answer.headers["retry-after"]) <= 59


def test_a_model_that_does_not_load_is_a_503_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.late]\npath = 'none'\n")
    with serve(models=tmp_path / "models.toml") as client:
        for path, body in (
            ("/v1/embeddings", {"model": "late", "input": "a"}),
            ("/api/show", {"model": "late"}),
            ("/embed", {"inputs": "a"}),
        ):
            shaped(client.post(path, json=body), 503, "no folder")
        shaped(client.get("/info"), 503, "no folder")


@pytest.mark.parametrize(
    ("method", "path"),
    [e for e in ALL if e[1] not in ("/health", "/ready") and not e[1].startswith("/dashboard")],
)
def test_without_a_key_every_route_but_health_and_the_dashboards_files_is_a_401(
    cards_file: Path, method: str, path: str
) -> None:
    app = create_app(Settings(models=cards_file, api_keys=("sk-right-key-123456",)))
    client = TestClient(app)  # not entered: nobody without a key gets as far as the models
    answer = shaped(client.request(method, path), 401, "You didn't provide an API key.")
    assert answer.headers["www-authenticate"] == "Bearer"
    wrong = {"authorization": "Bearer sk-wrong-key-567890"}
    answer = client.request(method, path, headers=wrong)
    said = "Incorrect API key provided: sk-wr***7890."
    shaped(answer, 401, said, code="invalid_api_key")


@pytest.mark.parametrize(("method", "path"), [e for e in ALL if e[1] not in ("/health", "/ready")])
def test_without_keys_a_foreign_host_or_page_is_a_403(method: str, path: str) -> None:
    client = TestClient(create_app(Settings()), base_url="http://rebound.example")
    shaped(client.request(method, path), 403, "host name 'rebound.example'")
    headers = {"host": "localhost", "origin": "https://evil.example"}
    answer = client.request(method, path, headers=headers)
    shaped(answer, 403, "Web pages of 'https://evil.example'")
    assert "access-control-allow-origin" not in answer.headers
