"""Ollama's, TEI's and Cohere's routes give the same vectors as OpenAI's, in their own shapes."""

import base64

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.web.dialects import cohere, ollama, tei

TEXTS = ["hello world", "a b c"]
LONG = "a " * 40


def post(client: TestClient, path: str, **body: object):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture
def expected(client: TestClient) -> list[list[float]]:
    rows = post(client, "/v1/embeddings", model="org/tiny", input=TEXTS).json()["data"]
    return [row["embedding"] for row in rows]


def test_ollama_embeds(client: TestClient, expected: list[list[float]]) -> None:
    for model in ("org/tiny", "org/tiny:latest", "embed"):
        answer = post(client, "/api/embed", model=model, input=TEXTS, options={}, keep_alive="5m")
        read = msgspec.json.decode(answer.content, type=ollama.OllamaEmbedAnswer)
        assert (read.model, read.embeddings) == (model, expected)
        assert read.prompt_eval_count == 4 + 5
    one = post(client, "/api/embed", model="embed", input=TEXTS[0]).json()
    assert one["embeddings"] == expected[:1]
    old = post(client, "/api/embeddings", model="embed", prompt=TEXTS[0]).json()
    assert old == {"embedding": expected[0]}


@pytest.mark.parametrize("nothing", [{}, {"input": ""}, {"input": []}, {"input": None}])
def test_ollama_loads_a_model_that_is_asked_for_nothing(
    client: TestClient, nothing: dict[str, object]
) -> None:
    answer = post(client, "/api/embed", model="embed", **nothing).json()
    assert answer == {"model": "embed", "embeddings": []}
    assert post(client, "/api/embeddings", model="embed").json() == {"embedding": []}


def test_ollama_cuts_what_is_too_long_unless_told_not_to(client: TestClient) -> None:
    answer = post(client, "/api/embed", model="embed", input=[LONG])
    assert answer.headers["x-embedsvc-truncated"] == "1"
    assert answer.json()["prompt_eval_count"] == 32
    refused = client.post("/api/embed", json={"model": "embed", "input": LONG, "truncate": False})
    assert refused.status_code == 400


def test_ollama_tells_of_its_models(client: TestClient) -> None:
    assert client.get("/").text == "Ollama is running"
    assert client.head("/").status_code == 200
    assert client.get("/api/version").json()["version"].count(".") == 2
    tags = msgspec.json.decode(client.get("/api/tags").content, type=ollama.Tags)
    assert [tag.name for tag in tags.models] == ["org/tiny", "embed"]
    assert all(len(tag.digest) == 64 for tag in tags.models)
    shown = post(client, "/api/show", model="org/tiny:latest").json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"] == {
        "general.architecture": "bert",
        "bert.context_length": 32,
        "bert.embedding_length": 16,
    }
    assert post(client, "/api/show", name="embed").json() == shown


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_tei_embeds(client: TestClient, path: str, expected: list[list[float]]) -> None:
    assert post(client, path, inputs=TEXTS, truncate=True).json() == expected
    assert post(client, path, inputs=TEXTS[0], normalize=True).json() == expected[:1]


def test_tei_cuts_on_the_side_it_is_told(client: TestClient) -> None:
    text = "hello " + LONG
    left, right = (
        post(client, "/embed", inputs=text, truncate=True, truncation_direction=side).json()
        for side in ("Left", "Right")
    )
    start, end = (
        post(client, "/v1/embeddings", model="embed", input=text, truncate=side).json()
        for side in ("start", "end")
    )
    assert left[0] == start["data"][0]["embedding"] != right[0] == end["data"][0]["embedding"]


def test_tei_tells_of_its_model_and_its_tokens(client: TestClient) -> None:
    info = msgspec.json.decode(client.get("/info").content, type=tei.Info)
    assert (info.model_id, info.max_input_length) == ("org/tiny", 32)
    assert info.model_type == {"embedding": {"pooling": "mean"}}
    (tokens,) = post(client, "/tokenize", inputs="hello  b").json()
    assert tokens == [
        {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None},
        {"id": 30, "text": "hello", "special": False, "start": 0, "stop": 5},
        {"id": 5, "text": "b", "special": False, "start": 7, "stop": 8},
        {"id": 3, "text": "[SEP]", "special": True, "start": None, "stop": None},
    ]
    (bare,) = post(client, "/tokenize", inputs=["hello"], add_special_tokens=False).json()
    assert [token["text"] for token in bare] == ["hello"]


def test_cohere_embeds(client: TestClient, expected: list[list[float]]) -> None:
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    for texts in (
        {"texts": TEXTS},
        {"inputs": [{"content": [{"type": "text", "text": text}]} for text in TEXTS]},
    ):
        fields = {"model": "embed", "input_type": "search_query", "embedding_types": kinds}
        answer = post(client, "/v2/embed", **fields, **texts)
        read = msgspec.json.decode(answer.content, type=cohere.CohereEmbedAnswer)
        assert read.embeddings.floats == expected
        assert read.texts == TEXTS
        assert read.meta["billed_units"] == {"input_tokens": 9}
        assert read.embeddings.base64 is not None
        packed = [np.frombuffer(base64.b64decode(row), "<f4") for row in read.embeddings.base64]
        assert [row.tolist() for row in packed] == np.float32(expected).tolist()
        assert np.abs(read.embeddings.int8).max() == 127
        assert np.shape(read.embeddings.ubinary) == (2, 2)
    plain = post(client, "/v2/embed", model="embed", texts=[LONG]).json()  # it cuts by default
    assert list(plain["embeddings"]) == ["float"]
