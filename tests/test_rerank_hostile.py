"""What nobody means to send to the routes that give scores: all of it is scored, or refused by the
name of the field that is wrong, and never ends in an error of the server or a score that is none.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.rerankers import serve_models

MOST = 50
ROUTES = {
    "/rerank": ("query", "documents"),
    "/v1/rerank": ("query", "texts"),
    "/v2/rerank": ("query", "documents"),
    "/voyage/v1/rerank": ("query", "documents"),
    "/infinity/rerank": ("query", "documents"),
    "/": ("query", "texts"),
    "/score": ("text_1", "text_2"),
    "/v1/score": ("queries", "items"),
}
"""Paths, and their fields for queries and for documents."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_models(tmp_path_factory.mktemp("models"), max_inputs=MOST) as client:
        yield client


def scores_in(answer: Any) -> list[float]:
    """All scores of an answer in any shape."""
    rows = answer
    if isinstance(answer, dict):
        rows = answer["results"] if "results" in answer else answer["data"]
    return [row["score"] if "score" in row else row["relevance_score"] for row in rows]


def send(server: TestClient, path: str, body: str) -> tuple[int, str, Any]:
    """The status, what is said of an error, and the answer."""
    answer = server.post(path, content=body, headers={"content-type": "application/json"})
    read = json.loads(answer.text, parse_constant=pytest.fail)  # NaN and Infinity
    return answer.status_code, answer.text, read


SCORED: dict[str, tuple[str, str, int]] = {
    "empty documents": ('"hello"', '["", "a", ""]', 3),
    "documents of white space": ('"hello"', '[" ", "\\n\\t\\u00a0", "\\u200b"]', 3),
    "a query of white space": ('" \\n"', '["a"]', 1),
    "one document": ('"hello"', '["a"]', 1),
    "the same documents": ('"hello"', '["a", "a", "a"]', 3),
    "the query as a document": ('"hello"', '["hello"]', 1),
    "half a surrogate pair": ('"\\ud800"', '["\\udfff a", "\\ud83d\\ude42"]', 2),
    "a null character": ('"\\u0000"', '["\\u0000", "a\\u0000b"]', 2),
    "marks": ('"hello"', json.dumps(["\u0301" * 5000, "a" * 5000, "\u202e"]), 3),
    "as many as there may be": ('"hello"', json.dumps(["a"] * MOST), MOST),
}


@pytest.mark.parametrize("model", ["ranker", "embed"])
@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("case", SCORED)
def test_what_can_be_scored_has_a_score_each(
    server: TestClient, case: str, path: str, model: str
) -> None:
    query, documents, count = SCORED[case]
    names = ROUTES[path]
    body = f'{{"model": "{model}", "{names[0]}": {query}, "{names[1]}": {documents}}}'
    status, said, answer = send(server, path, body)
    assert status == 200, said
    scores = scores_in(answer)
    assert len(scores) == count
    assert all(math.isfinite(score) and -1 <= score <= 1 for score in scores)
    if "score" not in path:
        assert scores == sorted(scores, reverse=True)


DEEP = "[" * 60 + "]" * 60
REFUSED = {
    '""': "{query}",
    "7": "{documents}",
    "[]": "{documents}",
    '["a", null]': "{documents}[1]",
    '["a", 7]': "{documents}[1]",
    '["a", ["b"]]': "{documents}[1]",
    '["a", true]': "{documents}[1]",
    '["a", {}]': "{documents}[1]",
    '["a", {"text": 5}]': "{documents}[1]",
    '["a", {"content": []}]': "{documents}[1]",
    '["a", {"content": ["b"]}]': "{documents}[1]",
    f'["a", {DEEP}]': "{documents}[1]",
    json.dumps(["a"] * (MOST + 1)): "{documents}",
    json.dumps(["a"] * 10_000): "{documents}",
}
"""Documents, and the field that errors name."""


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("documents", REFUSED, ids=lambda sent: sent[:20])
def test_what_makes_no_sense_is_refused_by_its_name(
    server: TestClient, documents: str, path: str
) -> None:
    query_field, documents_field = ROUTES[path]
    name = REFUSED[documents].format(query=query_field, documents=documents_field)
    query, sent = ('""', '["a"]') if documents == '""' else ('"hello"', documents)
    body = f'{{"model": "ranker", "{query_field}": {query}, "{documents_field}": {sent}}}'
    status, said, _ = send(server, path, body)
    assert status == 400
    assert f"'{name}'" in said, said


COUNTS = ("-2", "1.5", "1.0", '"2"', "true", "[1]", "{}", "1e3", "2147483648", "9" * 40)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/rerank", "top_n"),
        ("/v1/rerank", "top_k"),
        ("/v2/rerank", "top_n"),
        ("/infinity/rerank", "top_n"),
        ("/voyage/v1/rerank", "top_k"),
        ("/rerank", "max_tokens_per_doc"),
        ("/rerank", "max_tokens_per_query"),
    ],
)
def test_a_number_that_is_none_is_refused(
    server: TestClient, path: str, field: str, count: str
) -> None:
    body = f'{{"model": "ranker", "query": "a", "documents": ["b", "c"], "{field}": {count}}}'
    status, said, _ = send(server, path, body)
    assert status == 400
    assert f"'{field}'" in said
