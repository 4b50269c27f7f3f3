"""What clients of applications send, as it was found in their sources, and what they read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.support.rerankers import DOCUMENTS, logits, post, serve_models, sigmoid

QUERY = "hello"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_models(tmp_path_factory.mktemp("models")) as client:
        yield client


@pytest.fixture(scope="module")
def right(server: TestClient) -> np.ndarray:
    """The scores of the documents, in their order."""
    return sigmoid(logits(server, QUERY, DOCUMENTS))


SENT: dict[str, tuple[str, dict[str, Any]]] = {
    "Open WebUI": ("/v1/rerank", {"top_n": 5}),
    "Dify": ("/rerank", {"top_n": None, "return_documents": True}),
    "RAGFlow": ("/rerank", {"top_n": 5}),
    "RAGFlow, for Xinference": ("/v1/rerank", {"return_documents": "true", "return_len": "true"}),
    "RAGFlow, for SiliconFlow": (
        "/v1/rerank",
        {"top_n": 5, "return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
    ),
    "mem0": ("/v1/rerank", {"top_n": 5}),
    "clients for whom -1 is all": (
        "/rerank",
        {"top_n": -1, "return_documents": True, "max_chunks_per_doc": 1024},
    ),
    "litellm": ("/rerank", {"return_documents": True, "truncate_prompt_tokens": 100}),
}


@pytest.mark.parametrize("application", SENT)
def test_applications_get_what_they_read(
    server: TestClient, right: np.ndarray, application: str
) -> None:
    path, fields = SENT[application]
    body = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS} | fields
    answer = post(server, path, **body).json()
    rank = np.zeros(len(DOCUMENTS))
    for result in answer["results"]:  # RAGFlow and Open WebUI look for every one of them
        rank[result["index"]] = result["relevance_score"]
    assert np.abs(rank - right).max() < 1e-6
    assert answer["usage"]["total_tokens"] == answer["tokens"]["input_tokens"] > 0
    assert {"input_tokens", "output_tokens"} <= set(answer["meta"]["tokens"])
    if fields.get("return_documents") in (True, "true"):
        for result in answer["results"]:  # litellm and Dify read an object here
            assert result["document"]["text"] == DOCUMENTS[result["index"]]


TEXTS_SENT: dict[str, dict[str, Any]] = {
    "Open WebUI, where documents were refused": {"truncate": True},
    "mem0": {},
    "Haystack": {"raw_scores": False},
    "Haystack, told to cut": {
        "raw_scores": False,
        "truncate": True,
        "truncation_direction": "right",
    },
}


@pytest.mark.parametrize("application", TEXTS_SENT)
def test_applications_that_send_texts_get_what_they_read(
    server: TestClient, right: np.ndarray, application: str
) -> None:
    ranks = post(server, "/rerank", query=QUERY, texts=DOCUMENTS, **TEXTS_SENT[application]).json()
    found = {rank["index"]: rank["score"] for rank in ranks}
    assert np.abs([found[i] for i in range(len(DOCUMENTS))] - right).max() < 1e-6
