"""All routes, and the shape that each error has in the dialect of its route."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from httpx2 import Response
from starlette.testclient import TestClient

from embedsvc.settings import Settings
from embedsvc.web.app import create_app
from embedsvc.web.endpoint import Endpoint
from tests.support.app import serve

PATHS = {
    "{id}": "none",
    "{id:path}": "none",
    "{id:uuid}": "00000000-0000-4000-8000-000000000000",
    "{path:path}": "none",
    "{model:path}": "org/tiny",
}
TEI_PATHS = (
    *("/", "/decode", "/embed", "/embed_all", "/embed_sparse", "/tokenize", "/info"),
    *("/predict", "/similarity"),
)
EXO = (
    *("/instance", "/place_instance", "/node_id", "/state", "/events", "/onboarding"),
    *("/models/add", "/models/custom", "/v1/feature-flags", "/v1/instance-links"),
)
TEI_TYPES = {"Validation", "Empty", "Tokenizer"}
NOT_JSON = "We could not parse the JSON body of your request."


def endpoints() -> list[Endpoint]:
    """All routes of the app."""
    app = create_app(Settings())
    return [route for route in app.routes if isinstance(route, Endpoint)]


def url(path: str) -> str:
    """A path with values in place of its parameters."""
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
    elif path in TEI_PATHS:
        assert set(body) == {"error", "error_type"}
        message = body["error"]
        expected = "Unhealthy" if status == 503 else "Backend" if status >= 500 else "Validation"
        expected = "Overloaded" if status == 429 else expected
        assert body["error_type"] in ({expected} if status != 400 else TEI_TYPES)
    elif path.startswith("/voyage"):
        assert set(body) == {"detail"}
        message = body["detail"]
    elif path.startswith(EXO):
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        message = body["error"]["message"]
        assert body["error"]["type"] == HTTPStatus(status).phrase
        assert body["error"]["code"] == status
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


@contextmanager
def serve_with_limits(folder: Path, tiny_folder: Path) -> Iterator[TestClient]:
    """The app over tiny models of several kinds, which takes little of anything."""
    file = folder / "models.toml"
    file.write_text(
        f"[models.\"org/tiny\"]\npath = '{tiny_folder}'\npreload = true\ndimensions = [4, 8]\n"
        f"[models.ids]\npath = '{tiny_folder}'\ntoken_ids = 'model'\n"
        f"[models.textonly]\npath = '{tiny_folder}'\ntoken_ids = 'reject'\n"
        f"[models.cls]\npath = '{tiny_folder}'\npooling = 'cls'\n"
    )
    with serve(models=file, max_request_tokens=90, max_inputs=20, max_body_bytes=5000) as client:
        yield client
