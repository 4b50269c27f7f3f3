"""Late-interaction models behind the routes."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.web.dialects.pooling import PoolingAnswer
from embedsvc.web.token_answers import in_base64
from tests.support.app import serve
from tests.support.colbert import COLBERTS, DOCUMENTS, QUERIES
from tests.support.rerankers import ONE_LABEL, post

NAME = "pylate"
RECORDED = Path(__file__).parent / "reference" / "colbert" / f"{NAME}.npz"
SCORES = np.load(RECORDED, allow_pickle=False)["scores"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    COLBERTS[NAME].write(folder / "colbert")
    file = folder / "models.toml"
    file.write_text(
        '[models.colbert]\npath = "colbert"\ntask = "rerank"\npreload = true\n', encoding="utf-8"
    )
    with serve(models=file) as client:
        yield client


def near(found: Any, expected: Any) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= 1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("raw", [True, False])
def test_documents_are_ranked_by_maxsim(server: TestClient, raw: bool) -> None:
    body = {"query": QUERIES[0], "documents": DOCUMENTS, "raw_scores": raw}
    answer = post(server, "/v1/rerank", model="colbert", **body)
    assert answer.headers["x-embedsvc-scores"] == "maxsim"
    results = answer.json()["results"]
    assert [result["index"] for result in results] == np.argsort(-SCORES[0]).tolist()
    assert near([result["relevance_score"] for result in results], -np.sort(-SCORES[0]))


def test_texts_are_ranked_for_tei_by_the_first_that_ranks(server: TestClient) -> None:
    answer = post(server, "/rerank", query=QUERIES[1], texts=DOCUMENTS)
    assert near([rank["score"] for rank in answer.json()], -np.sort(-SCORES[1]))


def test_pairs_are_scored(server: TestClient) -> None:
    answer = post(server, "/score", model="colbert", text_1=QUERIES, text_2=DOCUMENTS[:4])
    assert near([each["score"] for each in answer.json()["data"]], np.diagonal(SCORES))


def test_sentences_are_compared_with_one(server: TestClient) -> None:
    inputs = {"source_sentence": QUERIES[2], "sentences": DOCUMENTS}
    assert near(post(server, "/similarity", inputs=inputs, model="colbert").json(), SCORES[2])


def test_the_list_of_models_says_what_it_is_for(server: TestClient) -> None:
    post(server, "/score", model="colbert", text_1="a", text_2="b")
    model, *_ = server.get("/v1/models").json()["data"]
    assert (model["tasks"], model["dimensions"], model["pooling"]) == (["rerank"], 8, None)
    assert model["prompts"] == {"query": "[Q] ", "document": "[D] "}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/embeddings", {"input": "hello"}, "gives vectors of tokens, not vectors"),
        ("/classify", {"input": "hello"}, "gives vectors of tokens, not scores"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "instruction": "x"}, "no instruction"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "truncate": "chunk"}, "'truncate'"),
    ],
)
def test_what_it_does_not_give_is_refused(
    server: TestClient, path: str, body: dict[str, Any], said: str
) -> None:
    answer = server.post(path, json={"model": "colbert"} | body)
    assert answer.status_code == 400
    assert said in answer.text


# --- vectors of tokens ---------------------------------------------------------------------------


def test_vectors_of_documents_are_answered_as_vllm_does(server: TestClient) -> None:
    body = {"input": DOCUMENTS, "task": "token_embed", "truncate": "end"}
    answer = post(server, "/pooling", model="colbert", **body)
    read = msgspec.json.decode(answer.content, type=PoolingAnswer)
    with np.load(RECORDED, allow_pickle=False) as arrays:
        for row in read.data:
            assert near(row.data, arrays[f"d{row.index}"])
            assert row.shape == arrays[f"d{row.index}"].shape
    assert answer.headers["x-embedsvc-truncated"] == "1"


@pytest.mark.parametrize(("dtype", "code"), [("float16", "<f2"), ("float32", "<f4"), (None, "<f4")])
def test_vectors_of_queries_come_in_base64(
    server: TestClient, dtype: str | None, code: str
) -> None:
    body = {"input": QUERIES[0], "encoding_format": "base64", "embed_dtype": dtype}
    (row,) = post(server, "/pooling", model="colbert", input_type="query", **body).json()["data"]
    found = np.frombuffer(base64.b64decode(row["data"]), code).reshape(row["shape"])
    with np.load(RECORDED, allow_pickle=False) as arrays:
        assert near(found, arrays["q0"])


def test_vectors_are_answered_as_tei_does(server: TestClient) -> None:
    answer = post(server, "/embed_all", inputs=QUERIES[:2], prompt_name="query")
    with np.load(RECORDED, allow_pickle=False) as arrays:
        for place, vectors in enumerate(answer.json()):
            assert near(vectors, arrays[f"q{place}"])


def test_an_answer_that_would_be_too_large_is_refused(
    server: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.web.token_answers.VECTOR_BYTES", 8 * 13 * 9)
    answer = server.post("/pooling", json={"model": "colbert", "input": ["hello", "world"]})
    assert answer.status_code == 200
    answer = server.post("/pooling", json={"model": "colbert", "input": ["hello"] * 3})
    assert answer.status_code == 400
    assert "9 vectors of 8 dimensions at most, and these texts have 12" in answer.text
    assert in_base64([[1.0]], "float32") == "AACAPw=="


def test_tei_s_route_takes_a_loaded_model_that_gives_vectors_of_tokens(tmp_path: Path) -> None:
    ONE_LABEL.write(tmp_path / "ranker")
    COLBERTS[NAME].write(tmp_path / "colbert")
    file = tmp_path / "models.toml"
    cards = [
        f'[models.{name}]\npath = "{name}"\ntask = "rerank"\n' for name in ("ranker", "colbert")
    ]
    file.write_text("".join(cards), encoding="utf-8")
    with serve(models=file) as client:
        post(client, "/rerank", query="hello", texts=["world"])
        answer = client.post("/embed_all", json={"inputs": "hello"})
        assert answer.status_code == 400
        assert "Name a late-interaction model" in answer.text
        named = post(client, "/embed_all", inputs="hello", model="colbert").json()
        assert post(client, "/embed_all", inputs="hello").json() == named
