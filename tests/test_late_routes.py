"""Late-interaction models behind the routes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.support.app import serve
from tests.support.colbert import COLBERTS, DOCUMENTS, QUERIES
from tests.support.rerankers import post

NAME = "pylate"
RECORDED = Path(__file__).parent / "reference" / "colbert" / f"{NAME}.npz"
SCORES = np.load(RECORDED, allow_pickle=False)["scores"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    COLBERTS[NAME].write(folder / "colbert")
    file = folder / "models.toml"
    file.write_text('[models.colbert]\npath = "colbert"\ntask = "rerank"\n', encoding="utf-8")
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
