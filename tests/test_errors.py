"""Every error has the shape of its route's dialect, OpenAI's words, and any answer's headers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.encoder import Encoder
from embedsvc.settings import Settings
from embedsvc.web.app import create_app
from embedsvc.web.endpoint import Endpoint
from tests.support.app import serve
from tests.support.checkpoints import write_bert, write_json

LONG = "a " * 31  # 33 tokens with [CLS] and [SEP]; the limit is 32
UNCUT = {"truncate": "error"}
PATHS = {
    "{id}": "none",
    "{id:path}": "none",
    "{id:uuid}": "00000000-0000-4000-8000-000000000000",
    "{model:path}": "org/tiny",
}
TEI_TYPES = {"Validation", "Empty", "Tokenizer"}
NOT_JSON = "We could not parse the JSON body of your request."


def endpoints() -> list[Endpoint]:
    app = create_app(Settings())
    return [route for route in app.routes if isinstance(route, Endpoint)]


def url(path: str) -> str:
    for part, value in PATHS.items():
        path = path.replace(part, value)
    return path


ALL = [(route.method, url(route.path)) for route in endpoints()]
POSTS = [url(route.path) for route in endpoints() if route.body is not None]
EMBEDDINGS = [path for path in POSTS if path.endswith("/embeddings") and "/api/" not in path]
NAMED = [path for path in EMBEDDINGS if "org/tiny" in path]  # the path names the model


def shaped(
    answer: Response, status: int, said: str = "", *, kind: str = "", code: str | None = None
) -> Response:
    """Assert that an answer is that error in the shape that clients of its path read.

    `kind` and `code` are OpenAI's; other dialects have no place for them.
    """
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    path = answer.url.path
    if path.startswith("/api/"):  # Ollama
        assert set(body) == {"error"}
        message = body["error"]
    elif path in ("/", "/embed", "/embed_sparse", "/tokenize", "/info"):  # TEI
        assert set(body) == {"error", "error_type"}
        message = body["error"]
        expected = "Unhealthy" if status == 503 else "Backend" if status >= 500 else "Validation"
        expected = "Overloaded" if status == 429 else expected
        assert body["error_type"] in ({expected} if status != 400 else TEI_TYPES)
    elif path.startswith("/v2/"):  # Cohere
        assert set(body) == {"message"}
        message = body["message"]
    else:
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        message = body["error"]["message"]
        expected = kind or ("server_error" if status >= 500 else "invalid_request_error")
        assert (body["error"]["type"], body["error"]["code"]) == (expected, code)
    assert said in message
    assert ("allow" in answer.headers) == (status == 405)
    assert answer.headers["x-request-id"]
    assert answer.headers["openai-version"] == "2020-10-01"
    assert int(answer.headers["openai-processing-ms"]) >= 0
    return answer


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    file = tmp_path_factory.mktemp("errors") / "models.toml"
    file.write_text(
        f"[models.\"org/tiny\"]\npath = '{tiny_folder}'\npreload = true\ndimensions = [4, 8]\n"
        f"[models.ids]\npath = '{tiny_folder}'\ntoken_ids = 'model'\n"
        f"[models.textonly]\npath = '{tiny_folder}'\ntoken_ids = 'reject'\n"
        f"[models.cls]\npath = '{tiny_folder}'\npooling = 'cls'\n"
    )
    with serve(models=file, max_request_tokens=90, max_inputs=20, max_body_bytes=5000) as client:
        yield client


def test_there_is_no_answer_where_nothing_is(server: TestClient) -> None:
    shaped(server.get("/v1/nope"), 404, "Invalid URL (GET /v1/nope)")
    shaped(server.post("/v1//nope/", json={}), 404, "Invalid URL (POST /v1/nope)")
    shaped(server.get("/%ff%fe"), 404, "Invalid URL")
    for path in ("/api/nope", "/api/embed/nope", "/embed_sparse", "/v2/nope"):
        shaped(server.post(path, json={}), 404, f"Invalid URL (POST {path})")


def test_words_of_a_dialect_do_not_reach_beyond_its_paths(server: TestClient) -> None:
    for path in ("/apis", "/embedding", "/v1/embeds", "/v22/embed", "/information"):
        assert set(server.get(path).json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", sorted({path for _, path in ALL}))
def test_a_method_that_a_path_does_not_have_is_a_405(server: TestClient, path: str) -> None:
    has = {method for method, other in ALL if other == path}
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


WRONG: list[tuple[dict[str, object], str]] = [
    ({"model": None}, "you must provide a model parameter"),
    ({"model": ""}, "you must provide a model parameter"),
    ({"model": 7}, NOT_JSON),
    ({"input": None}, "Please submit an `input`."),
    ({"input": ""}, "Invalid 'input': input cannot be an empty string."),
    ({"input": ["a", ""]}, "Invalid 'input[1]': input cannot be an empty string."),
    ({"input": []}, "Invalid 'input': input cannot be an empty array."),
    ({"input": [[1], []]}, "Invalid 'input[1]': input cannot be an empty array."),
    ({"input": [1, 10**4000]}, f"Invalid 'input': 1{'0' * 199}… is not a token id of"),
    ({"input": [1, -(10**4000)], "model": "ids"}, f"'input': -1{'0' * 198}… is not a token id of"),
    ({"prompt_name": "a\n\x1b"}, "Invalid value for 'prompt_name' = a\\n\\x1b. Supported"),
    ({"input": ["a", 7]}, "Invalid 'input[1]': expected a string as the first is, not a token id."),
    ({"input": {"a": 1}}, "Invalid 'input': expected a string or token array."),
    ({"input": ["a"] * 21}, "Invalid 'input': array length must be 20 or less."),
    (UNCUT | {"input": LONG}, "Invalid 'input': maximum context length is 32 tokens."),
    (UNCUT | {"input": ["a", LONG]}, "Invalid 'input[1]': maximum input length is 32 tokens."),
    (
        UNCUT | {"input": LONG},
        "This model's maximum context length is 32 tokens, however you requested 33 tokens.",
    ),
    (
        UNCUT | {"input": LONG},
        'send "truncate": "end", "start", or "chunk" for all of it in parts.',
    ),
    ({"input": [100_256]}, "Invalid 'input': 100256 is not a token id of cl100k_base."),
    ({"input": [[1], [-1]]}, "Invalid 'input[1]': -1 is not a token id of cl100k_base."),
    ({"input": [10**30]}, f"Invalid 'input': {10**30} is not a token id of cl100k_base."),
    ({"input": [9], "model": "textonly"}, "Invalid 'input': this model takes text, not token ids."),
    ({"input": [99], "model": "ids"}, "99 is not a token id of this model, which has 32."),
    ({"input": [9], "model": "ids", "prompt": "a"}, "a prompt does not go with"),
    ({"input": [9], "model": "ids", "chunks": [[0, 1]]}, "chunks are of texts, not of"),
    ({"prompt": LONG, "truncate": "end"}, "Invalid 'input': maximum context length is 32 tokens."),
    (
        {"encoding_format": "string"},
        "Invalid value for 'encoding_format' = string. Supported values: ['float', 'base64'].",
    ),
    (
        {"dimensions": 17},
        "= 17. Must be less than or equal to 16. Supported values: [4, 8, 16].",
    ),
    ({"dimensions": 0}, "Invalid value for 'dimensions' = 0. Must be greater than 0."),
    ({"dimensions": 5}, "Invalid value for 'dimensions' = 5. Supported values: [4, 8, 16]."),
    ({"dimensions": "abc"}, "'abc' is not of type 'integer' - 'dimensions'"),
    ({"dimensions": 8, "model": "ids"}, "This model does not support specifying dimensions."),
    ({"dimensions": 17, "model": "ids"}, "This model does not support specifying dimensions. Its"),
    ({"prompt_name": "x"}, "Invalid value for 'prompt_name' = x. Supported values: ['class"),
    ({"input_type": "x"}, "Invalid value for 'input_type' = x. Supported values: ["),
    ({"truncate": "x"}, "Invalid value for 'truncate' = x. Supported values: ['error', 'end'"),
    ({"chunks": [[0, 0]]}, "Invalid 'chunks': [0, 0] is no part of the 5 characters of 'input'."),
    ({"chunks": [[0, 6]]}, "Invalid 'chunks': [0, 6] is no part of the 5 characters of 'input'."),
    ({"chunks": [[0, 5], [1, 5]]}, "Invalid 'chunks': in [1, 5] of 'input' begins no token."),
    ({"chunking": {"size": 2, "overlap": 2}}, "Invalid 'chunking': `size` is at least 1"),
    ({"chunking": {"size": 2}, "input": LONG, "truncate": "end"}, "maximum context length is 32"),
    ({"chunking": {"size": 2}, "model": "cls"}, "Late chunking needs a model with mean pooling"),
]


@pytest.mark.parametrize(("fields", "said"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_is_wrong_is_said_in_openais_words(
    server: TestClient, fields: dict[str, object], said: str
) -> None:
    body = {"model": "org/tiny", "input": "hello"} | fields
    shaped(server.post("/v1/embeddings", json=body), 400, said)


@pytest.mark.parametrize("path", sorted(set(EMBEDDINGS) - set(NAMED)))
def test_it_is_said_alike_on_all_of_openais_paths(server: TestClient, path: str) -> None:
    shaped(server.post(path, json={"input": "a"}), 400, "you must provide a model parameter")
    shaped(server.post(path, json={"model": "org/tiny"}), 400, "Please submit an `input`.")


@pytest.mark.parametrize("path", NAMED)
def test_where_the_path_names_the_model_the_body_need_not(server: TestClient, path: str) -> None:
    shaped(server.post(path, json={"model": 7}), 400, "Please submit an `input`.")


DIALECTS: list[tuple[str, dict[str, object], str]] = [
    ("/api/embed", {"input": [1]}, "Invalid 'input[0]': expected a string, not a whole number."),
    ("/api/embed", {"input": ["a"] * 21}, "Invalid 'input': array length must be 20 or less."),
    ("/api/embed", {"input": LONG, "truncate": False}, "Invalid 'input': maximum context length"),
    ("/api/embed", {"input": "a", "dimensions": 99}, "Invalid value for 'dimensions' = 99."),
    ("/api/embeddings", {"prompt": 1}, "Invalid 'prompt': expected a string or null, not"),
    ("/api/show", {}, "you must provide a model parameter"),
    ("/embed", {"inputs": [1]}, "Invalid 'inputs[0]': expected a string, not a whole number."),
    ("/embed", {"inputs": []}, "Invalid 'inputs': input cannot be an empty array."),
    ("/embed", {"inputs": LONG}, "Invalid 'inputs': maximum context length is 32 tokens."),
    ("/embed", {"inputs": LONG}, 'embedded all the same, send "truncate": true.'),
    ("/", {"inputs": ["a", LONG]}, "Invalid 'inputs[1]': maximum input length is 32 tokens."),
    ("/embed", {"inputs": "a", "normalize": False}, "this model's vectors have length 1"),
    ("/embed", {"inputs": "a", "prompt_name": "x"}, "Invalid value for 'prompt_name' = x."),
    ("/tokenize", {"inputs": [""]}, "Invalid 'inputs[0]': input cannot be an empty string."),
    ("/v2/embed", {"images": ["x"]}, "Please submit `texts`."),
    (
        "/v2/embed",
        {"texts": ["a"], "truncate": "x"},
        "Invalid value for 'truncate' = x. Supported values: ['NONE', 'START', 'END'].",
    ),
    ("/v2/embed", {"texts": ["a", LONG], "truncate": "NONE"}, "Invalid 'texts[1]': maximum input"),
    ("/v2/embed", {"texts": [LONG], "truncate": "NONE"}, 'send "truncate": "END".'),
    ("/v2/embed", {"texts": [""]}, "Invalid 'texts[0]': input cannot be an empty string."),
    (
        "/v2/embed",
        {"inputs": [{"content": [{"type": "text", "text": t}]} for t in ("a", LONG)]}
        | {"truncate": "NONE"},
        "Invalid 'inputs[1]': maximum input length is 32 tokens.",
    ),
    ("/v2/embed", {"texts": ["a"], "output_dimension": 99}, "'output_dimension' = 99."),
    (
        "/v2/embed",
        {"texts": ["a"], "embedding_types": ["x"]},
        "Invalid value for 'embedding_types[0]' =",
    ),
]


@pytest.mark.parametrize(("path", "fields", "said"), DIALECTS)
def test_other_dialects_are_refused_in_their_shape_by_their_fields(
    server: TestClient, path: str, fields: dict[str, object], said: str
) -> None:
    model = {} if path == "/api/show" else {"model": "org/tiny"}
    shaped(server.post(path, json=model | fields), 400, said)


def test_tei_is_told_what_sort_of_error_it_is(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bare")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", tokenizer | {"post_processor": None})
    (tmp_path / "models.toml").write_text("[models.tiny]\npath = 'bare'\n")
    with serve(models=tmp_path / "models.toml") as client:
        for inputs, kind in (([], "Empty"), ("", "Empty"), (" ", "Tokenizer"), (7, "Validation")):
            answer = client.post("/embed", json={"inputs": inputs})
            assert (answer.status_code, answer.json()["error_type"]) == (400, kind)


def test_all_inputs_together_may_be_too_long(server: TestClient) -> None:
    body = {"model": "org/tiny", "input": ["a " * 29] * 3}
    said = "Requested 93 tokens, max 90 tokens per request"
    kind = "max_tokens_per_request"
    shaped(server.post("/v1/embeddings", json=body), 400, said, kind=kind, code=kind)
    body["chunking"] = {"size": 5}
    shaped(server.post("/v1/embeddings", json=body), 400, said, kind=kind, code=kind)


def test_a_text_too_long_is_named_by_its_place_in_a_long_request(client: TestClient) -> None:
    texts = ["a"] * 200
    texts[170] = LONG
    answer = client.post("/v1/embeddings", json=UNCUT | {"model": "embed", "input": texts})
    shaped(answer, 400, "Invalid 'input[170]'")


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


def test_errors_are_json_whatever_is_in_them(server: TestClient) -> None:
    body = {"model": 'a"\\ü\U0001f600', "input": "a"}
    answer = server.post("/v1/embeddings", content=json.dumps(body))
    shaped(answer, 404, body["model"], code="model_not_found")
