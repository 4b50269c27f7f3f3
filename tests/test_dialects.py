"""Ollama's, TEI's and Cohere's routes give the same vectors as OpenAI's, in their own shapes."""

import base64
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.web.dialects import cohere, ollama, tei
from tests.support.app import serve
from tests.support.classifiers import CLASSIFIERS

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
    assert info.max_concurrent_requests == 1000
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


# --- a model that gives something else -----------------------------------------------------------


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[TestClient]:
    """A server whose only model gives scores."""
    CLASSIFIERS["bert-scores"].write(tmp_path / "scorer")
    file = tmp_path / "models.toml"
    file.write_text("[models.scorer]\npath = 'scorer'\n", encoding="utf-8")
    with serve(models=file) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/embeddings", {"model": "scorer", "input": "a", "dimensions": 8}, "error.message"),
        ("/openai/deployments/scorer/embeddings", {"input": ["a"]}, "error.message"),
        (
            "/v1/embeddings",
            {"model": "scorer", "input": "a", "chunking": {"size": 2}},
            "error.message",
        ),
        ("/api/embed", {"model": "scorer", "input": "a"}, "error"),
        ("/api/embed", {"model": "scorer"}, "error"),
        ("/api/embeddings", {"model": "scorer", "prompt": "a"}, "error"),
        ("/api/embeddings", {"model": "scorer"}, "error"),
        ("/embed", {"inputs": "a", "normalize": False}, "error"),
        ("/", {"inputs": "a"}, "error"),
        ("/v2/embed", {"model": "scorer", "texts": ["a"]}, "message"),
    ],
)
def test_a_model_without_vectors_is_refused_in_every_dialect(
    scorer: TestClient, path: str, body: dict[str, object], where: str
) -> None:
    answer = scorer.post(path, json=body)
    said = answer.json()
    for key in where.split("."):
        said = said[key]
    assert (answer.status_code, said) == (400, "Model `scorer` gives scores, not vectors.")


def test_a_model_without_vectors_is_told_of_as_any_other(scorer: TestClient) -> None:
    created = post(scorer, "/v1/instances", model="scorer").json()
    events = scorer.get(f"/v1/instances/{created['id']}/events").text
    assert '"state":"ready"' in events
    (instance,) = scorer.get("/v1/instances").json()["data"]
    assert instance["state"] == "ready"
    (model,) = scorer.get("/v1/models").json()["data"]
    assert (model["dimensions"], model["pooling"], model["max_tokens"]) == (None, None, 64)
    assert scorer.get("/v1/models/scorer").json() == model
    assert post(scorer, "/tokenize", inputs="a").json()[0][0]["text"] == "[CLS]"
    assert list(scorer.get("/info").json()["model_type"]) == ["classifier"]
    assert scorer.get("/api/tags").json()["models"][0]["details"]["family"] == "bert"
    shown = post(scorer, "/api/show", model="scorer").json()
    assert shown["capabilities"] == []
    assert list(shown["model_info"]) == ["general.architecture", "bert.context_length"]
    assert scorer.get("/ready").status_code == 200
    assert scorer.get("/metrics").status_code == 200


def test_tei_refuses_what_it_can_before_it_loads_a_model(scorer: TestClient) -> None:
    refused = scorer.post("/embed", json={"inputs": [""], "normalize": False})
    assert refused.status_code == 400
    assert refused.json()["error_type"] == "Empty"
    assert scorer.get("/v1/instances").json()["data"] == []


def test_tei_refuses_vectors_that_are_not_normalized(client: TestClient) -> None:
    refused = client.post("/embed", json={"inputs": TEXTS, "normalize": False})
    assert refused.status_code == 400
    assert refused.json()["error"] == "Invalid 'normalize': this model's vectors have length 1."
