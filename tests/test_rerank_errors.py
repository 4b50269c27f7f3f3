"""What reranking and scoring refuse, in the words and the shape of each dialect, and when."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from embedsvc.bounds import RANK_FIELDS
from tests.support.app import serve
from tests.support.error_shapes import shaped
from tests.support.rerankers import post, serve_models

LONG = "a " * 100
DEEP = json.loads("[" * 253 + "]" * 253)
"""It can be written by itself, and not within a row of an answer."""
PAIR = {"model": "ranker", "query": "a", "documents": ["b"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    limits = {"max_inputs": 20, "max_pair_tokens": 90, "max_body_bytes": 9000}
    with serve_models(folder, **limits) as client:
        yield client


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/rerank", {"documents": None}, "Give either `documents` or `texts`."),
    ("/v1/rerank", {"texts": ["a"]}, "Give either `documents` or `texts`."),
    ("/v1/rerank", {"query": None}, "Invalid 'query': expected a string or an object, not null."),
    ("/v2/rerank", {"query": ""}, "Invalid 'query': it cannot be an empty string."),
    ("/v1/rerank", {"query": {}}, "Invalid 'query': expected a text, or an object with `text`"),
    ("/v1/rerank", {"documents": []}, "Invalid 'documents': it cannot be an empty array."),
    ("/v2/rerank", {"documents": ["a"] * 21}, "'documents': array length must be 20 or less."),
    ("/reranking", {"documents": [7]}, "Invalid 'documents[0]': expected a string or an object"),
    ("/v1/rerank", {"documents": ["a", {"b": 1}]}, "Invalid 'documents[1]': expected a text, or"),
    (
        "/v1/rerank",
        {"documents": [{"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
        "Invalid 'documents[0]': expected parts of `content` that have a `text`.",
    ),
    (
        "/v1/rerank",
        {"documents": [{"b": 1}], "rank_fields": ["a"]},
        "Invalid 'documents[0]': it has none of the `rank_fields`.",
    ),
    (
        "/v2/rerank",
        {"documents": ["a", {"text": "b", "year": 1 << 64}], "return_documents": True},
        "Invalid 'documents[1]': it cannot be written as JSON: Integer exceeds 64-bit range.",
    ),
    (
        "/v1/rerank",
        {"documents": [{"year": 1 << 64}], "rank_fields": ["year"]},
        "Invalid 'documents[0]': it cannot be written as JSON: Integer exceeds 64-bit range.",
    ),
    (
        "/v1/rerank",
        {"documents": {"text": "b", "deep": DEEP}, "return_documents": True},
        "Invalid 'documents': it cannot be written as JSON: Recursion limit reached.",
    ),
    ("/v1/rerank", {"rank_fields": ["a", "a"]}, "Invalid 'rank_fields': expected each"),
    (
        "/v1/rerank",
        {"rank_fields": [f"{i}" for i in range(RANK_FIELDS + 1)]},
        f"Invalid 'rank_fields': expected a list of length <= {RANK_FIELDS}",
    ),
    ("/v1/rerank", {"top_n": -2}, "Invalid 'top_n'"),
    ("/v1/rerank", {"return_documents": "yes"}, "Invalid value for 'return_documents' = yes."),
    ("/v1/rerank", {"documents": [LONG], "truncate": "error"}, "maximum context length is 64"),
    ("/v1/rerank", {"documents": [LONG], "truncate": False}, '"truncate": "end"'),
    ("/v1/rerank", {"documents": ["a " * 30] * 3}, "Requested 102 tokens, max 90 tokens"),
    ("/v1/rerank", {"instruction": "Judge."}, "Invalid 'instruction': model `ranker` takes no"),
    ("/v1/rerank", {"documents": {"b": 1}}, "Invalid 'documents': expected a text, or an object"),
    (
        "/score",
        {"documents": None, "text_1": "a", "text_2": {"b": 1}},
        "Invalid 'text_2': expected",
    ),
    ("/voyage/v1/rerank", {"documents": "a"}, "Invalid 'documents': expected a list, not"),
    ("/voyage/v1/rerank", {"documents": [LONG], "truncation": False}, '"truncation": true'),
    ("/score", {}, "Give `text_1` and `text_2`, or `queries` and `documents`, and no others."),
    ("/score", {"queries": "a", "text_2": "b"}, "Give `text_1` and `text_2`, or `queries`"),
    ("/v1/score", {"documents": None, "text_1": [], "text_2": "a"}, "Invalid 'text_1': it cannot"),
    ("/score", {"documents": None, "text_1": ["a", ""], "text_2": "a"}, "Invalid 'text_1[1]'"),
    ("/score", {"documents": None, "text_1": "a", "text_2": ["a"] * 21}, "Invalid 'text_2': array"),
    ("/classify", {}, "Missing required parameter: 'input'."),
    ("/classify", {"input": ["a", ""]}, "Invalid 'input[1]': it cannot be an empty string."),
    ("/classify", {"input": []}, "Invalid 'input': it cannot be an empty array."),
    ("/predict", {"inputs": ["a", "b", "c"]}, "Invalid 'inputs': expected a text, a pair of"),
    ("/predict", {"inputs": [["a"], []]}, "Invalid 'inputs[1]': expected a text, a pair of"),
    ("/predict", {"inputs": [["a"], "b"]}, "Invalid 'inputs[1]': expected a text, a pair of"),
    ("/predict", {"inputs": ""}, "Invalid 'inputs': it cannot be an empty string."),
    ("/predict", {"inputs": ["a", LONG], "truncate": False}, 'send "truncate": true'),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "'inputs.sentences'"),
    ("/similarity", {"inputs": {"sentences": ["a"]}}, "parameter: 'inputs.source_sentence'."),
    ("/", {}, "Give either `inputs` or `texts`."),
    ("/", {"texts": ["a"], "query": None}, "Missing required parameter: 'query'."),
    ("/", {"model": "org/tiny", "inputs": ["a", ["b"]]}, "Invalid 'inputs[1]': expected a string"),
]


@pytest.mark.parametrize(
    ("path", "fields", "said"), WRONG, ids=[f"{path} {i}" for i, (path, *_) in enumerate(WRONG)]
)
def test_what_is_wrong_is_said_by_its_field(
    server: TestClient, path: str, fields: dict[str, Any], said: str
) -> None:
    kind = "max_tokens_per_request" if "Requested" in said else ""
    shaped(server.post(path, json=PAIR | fields), 400, said, kind=kind, code=kind or None)


TEXTS = {"query": "a", "texts": ["b"]}


@pytest.mark.parametrize(
    ("fields", "status", "kind", "said"),
    [
        ({"texts": []}, 400, "Empty", "Invalid 'texts': it cannot be an empty array."),
        ({"texts": ["a"] * 21}, 400, "Validation", "'texts': array length must be 20 or less."),
        ({"texts": [7]}, 400, "Validation", "Invalid 'texts[0]': expected a string, not a whole"),
        ({"texts": [LONG], "truncate": False}, 400, "Validation", "Invalid 'texts': maximum"),
        ({"truncation_direction": "Up"}, 400, "Validation", "'truncation_direction' = Up."),
        ({"model": "none"}, 404, "Validation", "The model `none` does not exist"),
    ],
)
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_who_sends_texts_reads_tei_s_errors(
    server: TestClient, path: str, fields: dict[str, Any], status: int, kind: str, said: str
) -> None:
    answer = server.post(path, json=TEXTS | fields)
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "error_type"}
    assert answer.json()["error_type"] == kind
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", PAIR),
        ("/v2/rerank", PAIR),
        ("/score", {"text_1": "a", "text_2": "b"}),
        ("/predict", {"inputs": "a"}),
        ("/classify", {"input": "a"}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
        ("/voyage/v1/rerank", PAIR),
    ],
)
def test_an_unknown_model_is_a_404(server: TestClient, path: str, body: dict[str, Any]) -> None:
    shaped(
        server.post(path, json=body | {"model": "none"}),
        404,
        "The model `none` does not exist",
        code="model_not_found",
    )


def test_a_body_too_large_is_a_413_before_it_is_read(server: TestClient) -> None:
    body = PAIR | {"documents": ["a" * 9000]}
    shaped(server.post("/v1/rerank", json=body), 413, "limit is 9000 bytes")


def test_a_full_queue_is_a_429_with_retry_after(tmp_path: Path) -> None:
    with serve_models(tmp_path, max_waiting_tokens=1) as client:
        post(client, "/v1/rerank", **PAIR)
        registry = client.app.state.registry  # type: ignore[attr-defined]
        queue = registry.engines()["ranker"].batcher._queue
        queue.tokens = 10  # as if others waited
        other = PAIR | {"documents": ["c", "d"]}
        answers = [
            client.post("/v1/rerank", json=other),
            client.post("/rerank", json={"model": "ranker", "query": "a", "texts": ["c"]}),
        ]
        queue.tokens = 0
    shaped(answers[0], 429, "Rate limit reached", kind="tokens", code="rate_limit_exceeded")
    assert answers[1].json()["error_type"] == "Overloaded"
    assert all(1 <= int(answer.headers["retry-after"]) <= 59 for answer in answers)


def test_a_model_that_does_not_load_is_a_503_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.late]\npath = 'none'\ntask = 'rerank'\n")
    with serve(models=tmp_path / "models.toml") as client:
        shaped(client.post("/v1/rerank", json=PAIR | {"model": "late"}), 503, "no folder")
        assert client.post("/rerank", json=TEXTS).json()["error_type"] == "Unhealthy"
