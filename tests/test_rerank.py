"""Reranking, as the clients of many servers ask for it: their bodies, and what they read."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.web.dialects.rerank_schema import RerankAnswer, TeiRank
from embedsvc.web.dialects.voyage import VoyageRerankAnswer
from tests.support.rerankers import (
    DOCUMENTS,
    best_first,
    logits,
    post,
    serve_models,
    sigmoid,
)

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking")
QUERY = "hello"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_models(tmp_path_factory.mktemp("models"), max_inputs=1000) as client:
        yield client


@pytest.fixture(scope="module")
def raw(server: TestClient) -> list[float]:
    """The model's own outputs for the documents, in their order."""
    return logits(server, QUERY, DOCUMENTS)


def rerank(client: TestClient, path: str = "/v1/rerank", **fields: Any) -> Any:
    body = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS} | fields
    return post(client, path, **body).json()


def places(answer: Any) -> list[int]:
    return [result["index"] for result in answer["results"]]


def scores(answer: Any) -> list[float]:
    return [result["relevance_score"] for result in answer["results"]]


# --- what all clients read -----------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_documents_come_best_first_with_scores_from_0_to_1(
    server: TestClient, raw: list[float], path: str
) -> None:
    answer = post(server, path, model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    read = msgspec.json.decode(answer.content, type=RerankAnswer)
    order = best_first(raw)
    assert [result.index for result in read.results] == order
    found = [result.relevance_score for result in read.results]
    assert np.abs(found - sigmoid(raw)[order]).max() < 1e-6
    assert all(result.document is msgspec.UNSET for result in read.results)
    tokens = sum(len(text.split()) + 4 for text in DOCUMENTS)  # [CLS] hello [SEP] ... [SEP]
    assert (read.usage.prompt_tokens, read.usage.total_tokens) == (tokens, tokens)
    assert read.meta.billed_units == {"search_units": 1, "total_tokens": tokens}
    assert read.meta.api_version == {"version": "2"}
    assert read.meta.tokens == read.tokens
    assert (read.tokens.input_tokens, read.tokens.output_tokens) == (tokens, 0)
    assert read.model == "rerank-v3.5"
    assert answer.headers["openai-model"] == "ranker"
    assert answer.headers["x-embedsvc-scores"] == "scores"


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 5),
        ({"top_n": None}, 5),
        ({"top_n": 0}, 5),
        ({"top_n": -1}, 5),
        ({"top_n": 2}, 2),
        ({"top_n": 99}, 5),
        ({"top_k": 3}, 3),
        ({"top_k": 0}, 5),
        ({"top_n": 1, "top_k": 3}, 1),
        ({"top_n": None, "top_k": 4}, 4),
    ],
)
def test_the_best_are_as_many_as_are_asked_for(
    server: TestClient, raw: list[float], fields: dict[str, Any], count: int
) -> None:
    assert places(rerank(server, **fields)) == best_first(raw)[:count]


@pytest.mark.parametrize("flag", [{"raw_scores": True}, {"use_activation": False}])
def test_the_model_s_own_scores_are_there_for_those_who_ask(
    server: TestClient, raw: list[float], flag: dict[str, Any]
) -> None:
    answer = rerank(server, **flag)
    assert np.abs(scores(answer) - np.array(raw)[places(answer)]).max() < 1e-5
    as_text = {name: str(value).lower() for name, value in flag.items()}
    assert scores(rerank(server, **as_text)) == scores(answer)
    assert scores(rerank(server, raw_scores="false", use_activation="true")) != scores(answer)


def test_a_score_does_not_depend_on_the_other_documents(server: TestClient) -> None:
    together = {
        result["index"]: result["relevance_score"]
        for result in rerank(server, documents=DOCUMENTS * 30)["results"]
    }
    alone = sigmoid(logits(server, QUERY, DOCUMENTS))
    assert np.abs([together[i] - alone[i % 5] for i in range(150)]).max() < 1e-5


def test_equal_documents_stay_in_their_order(server: TestClient) -> None:
    assert places(rerank(server, documents=["a", "a", "a"])) == [0, 1, 2]


def test_a_model_is_found_where_none_is_named(server: TestClient) -> None:
    answer = post(server, "/rerank", query=QUERY, documents=DOCUMENTS)
    assert answer.headers["openai-model"] == answer.json()["model"] == "ranker"


def test_a_model_of_vectors_ranks_by_cosines(server: TestClient) -> None:
    rows = post(server, "/v1/embeddings", model="embed", input=[QUERY, "a b", "you see"]).json()
    first, *others = (np.array(row["embedding"]) for row in rows["data"])
    cosines = [first @ other for other in others]
    body = {"model": "embed", "query": QUERY, "documents": ["a b", "you see"]}
    for extra in ({}, {"raw_scores": True}):
        answer = post(server, "/v1/rerank", **body, **extra)
        assert answer.headers["x-embedsvc-scores"] == "cosine"
        assert places(answer.json()) == best_first(cosines)
        found = scores(answer.json())
        assert np.abs(found - np.array(cosines)[places(answer.json())]).max() < 1e-6


# --- documents -----------------------------------------------------------------------------------


def test_documents_are_returned_as_objects_to_those_who_ask(server: TestClient) -> None:
    given = ["a b", {"text": "hello", "id": 7}, {"content": [{"type": "text", "text": "you"}]}]
    for flag in (True, "true"):
        answer = rerank(server, documents=given, return_documents=flag)
        by_place = {result["index"]: result["document"] for result in answer["results"]}
        assert by_place[0] == {"text": "a b"}
        assert by_place[1] == given[1]
        assert by_place[2] == {"text": "you", **given[2]}  # type: ignore[dict-item]
    assert "document" not in rerank(server, return_documents="false")["results"][0]


@pytest.mark.parametrize(
    ("documents", "texts"),
    [
        ([{"text": "a b"}, "hello"], ["a b", "hello"]),
        ("a b", ["a b"]),
        ({"text": "a b"}, ["a b"]),
        ([{"content": [{"type": "text", "text": "a"}, {"text": "b"}]}], ["a\nb"]),
    ],
)
def test_documents_come_in_many_shapes(
    server: TestClient, documents: Any, texts: list[str]
) -> None:
    assert (
        rerank(server, documents=documents)["results"]
        == (rerank(server, documents=texts)["results"])
    )


def test_the_fields_that_are_to_be_read_are_read_in_their_order(server: TestClient) -> None:
    objects = [{"b": 1, "a": "hello"}, {"a": "you", "c": [True]}]
    found = rerank(server, documents=objects, rank_fields=["a", "b"])
    same = rerank(server, documents=["a: hello\nb: 1\n", "a: you\n"])
    assert found["results"] == same["results"]
    text = rerank(server, documents=[{"text": "hello", "a": "b"}], rank_fields=["text"])
    assert text["results"] == rerank(server, documents=["hello"])["results"]


def test_a_query_may_be_an_object_too(server: TestClient) -> None:
    for query in ({"text": QUERY}, {"content": [{"type": "text", "text": QUERY}]}):
        assert rerank(server, query=query)["results"] == rerank(server)["results"]


def test_a_long_document_is_cut_and_that_is_told(server: TestClient) -> None:
    long = {"query": QUERY, "documents": ["a " * 100], "model": "ranker"}
    answer = post(server, "/v1/rerank", **long)
    assert answer.headers["x-embedsvc-truncated"] == "1"
    assert answer.json()["usage"]["total_tokens"] == 64
    fewer = post(server, "/v1/rerank", **long, max_tokens_per_doc=5).json()
    assert fewer["usage"]["total_tokens"] == 4 + 5
    short = {"query": "a b c d e", "max_tokens_per_query": 2, "max_tokens_per_doc": 0}
    assert post(server, "/v1/rerank", **long | short).json()["usage"]["total_tokens"] == 64
    start, left = (
        post(server, "/v1/rerank", **long | {"documents": ["b " + "a " * 100]}, **how).json()
        for how in ({"truncate": "start"}, {"truncation_side": "left"})
    )
    assert start["results"] == left["results"]
    for how in ({"truncate": False}, {"truncate": "NONE"}, {"truncate": "error"}):
        refused = server.post("/v1/rerank", json=long | how)
        assert refused.status_code == 400
        assert "Invalid 'documents'" in refused.json()["error"]["message"]


def test_many_documents_with_long_texts_are_answered_in_pieces(server: TestClient) -> None:
    many = [f"{'x' * 9000} {i}" for i in range(300)]
    answer = rerank(server, documents=many, return_documents=True, max_tokens_per_doc=4)
    assert sorted(places(answer)) == list(range(300))
    assert all(
        result["document"] == {"text": many[result["index"]]} for result in answer["results"]
    )


# --- text-embeddings-inference -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/"])
def test_texts_are_answered_as_tei_does(server: TestClient, raw: list[float], path: str) -> None:
    body = {"query": QUERY, "texts": DOCUMENTS, "truncate": True, "truncation_direction": "Right"}
    ranks = msgspec.json.decode(post(server, path, **body).content, type=list[TeiRank])
    order = best_first(raw)
    assert [rank.index for rank in ranks] == order  # all of them, whatever `top_n` says
    assert np.abs([rank.score for rank in ranks] - sigmoid(raw)[order]).max() < 1e-6
    assert all(rank.text is msgspec.UNSET for rank in ranks)
    own = post(server, path, **body, raw_scores=True, return_text=True, top_n=1).json()
    assert np.abs([rank["score"] for rank in own] - np.array(raw)[order]).max() < 1e-5
    assert [rank["text"] for rank in own] == [DOCUMENTS[i] for i in order]


# --- Voyage --------------------------------------------------------------------------------------


def test_voyage_s_clients_have_a_path_of_their_own(server: TestClient, raw: list[float]) -> None:
    body = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS, "top_k": 2}
    answer = post(server, "/voyage/v1/rerank", **body, truncation=True)
    read = msgspec.json.decode(answer.content, type=VoyageRerankAnswer)
    assert [rank.index for rank in read.data] == best_first(raw)[:2]
    assert read.usage.total_tokens == sum(len(text.split()) + 4 for text in DOCUMENTS)
    told = post(server, "/voyage/v1/rerank", **body, return_documents=True).json()["data"]
    assert [rank["document"] for rank in told] == [DOCUMENTS[rank["index"]] for rank in told]


def test_infinity_s_clients_may_have_documents_as_strings(
    server: TestClient, raw: list[float]
) -> None:
    body = {"model": "ranker", "query": QUERY, "documents": DOCUMENTS, "return_documents": True}
    answer = post(server, "/infinity/rerank", **body)
    read = msgspec.json.decode(answer.content, type=RerankAnswer)
    order = best_first(raw)
    assert [result.document for result in read.results] == [DOCUMENTS[i] for i in order]
    assert (read.object, read.results[0].index) == ("rerank", order[0])
