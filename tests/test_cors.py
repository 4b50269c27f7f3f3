"""What browsers are told: which pages may read an answer, and which may ask at all."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.app import serve

KEY = "sk-a-right-key-123456"
BODY = {"model": "embed", "input": "hello"}


def test_a_page_gets_an_answer_it_may_read(client: TestClient) -> None:
    origin = "http://localhost:3000"
    answer = client.post("/v1/embeddings", json=BODY, headers={"origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in client.post("/v1/embeddings", json=BODY).headers


ASKED = "authorization,content-type,x-stainless-lang"


@pytest.mark.parametrize("settings", [{}, {"api_keys": (KEY,)}])
def test_a_browser_may_ask_first(cards_file: Path, settings: dict[str, object]) -> None:
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": ASKED,
        "access-control-request-private-network": "true",
    }
    with serve(models=cards_file, **settings) as client:
        for path in ("/v1/embeddings", "/v1/models", "/api/embed"):
            answer = client.options(path, headers=headers)  # it brings no key
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == ASKED
            assert answer.headers["access-control-allow-private-network"] == "true"


def test_a_page_of_elsewhere_may_not_ask(cards_file: Path) -> None:
    headers = {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    with serve(models=cards_file, host="0.0.0.0", insecure=True) as client:  # noqa: S104
        answer = client.options(
            "/v1/embeddings", headers=headers | {"origin": "http://203.0.113.9"}
        )
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-allow")]
    with serve(models=cards_file) as client:
        answer = client.options("/v1/embeddings", headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    with serve(models=cards_file, api_keys=(KEY,)) as client:
        answer = client.options("/v1/embeddings", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://evil.example"
        assert answer.headers["access-control-allow-private-network"] == "true"
    only = ("https://notes.example",)
    with serve(models=cards_file, api_keys=(KEY,), cors_origins=only) as client:
        answer = client.options("/v1/embeddings", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-private-network" not in answer.headers
