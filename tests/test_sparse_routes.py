"""Sparse vectors over HTTP: TEI's route, and beside vectors in one answer."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.inference.heads.sparse_vector import SparseVector, pruned
from embedsvc.serving.query_weights import read_query_weights
from embedsvc.texts.tokenizer import open_tokenizer
from tests.support.app import serve
from tests.support.sparse_models import QUERIES, SPARSE_CASES, recorded, write_m3

TEXTS = ["hello world a", "b", "hello hello c d e f g"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("sparse")
    write_m3(folder / "m3")
    for name in ("bert-splade", "bert-routed", "distilbert-routed"):
        SPARSE_CASES[name].write(folder / name)
    lines = [f"[models.{name}]\npath = '{folder / name}'\n" for name in
             ("m3", "bert-splade", "bert-routed", "distilbert-routed")]  # fmt: skip
    file = folder / "models.toml"
    file.write_text("\n".join(lines).replace("[models.bert-splade]",
                                              '[models.bert-splade]\ntask = "sparse"'))  # fmt: skip
    with serve(models=file) as client:
        yield client


def ask(client: TestClient, path: str = "/v1/embeddings", **body: Any) -> Any:
    answer = client.post(path, json={"model": "m3"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, path: str = "/v1/embeddings", **body: Any) -> str:
    answer = client.post(path, json={"model": "m3"} | body)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]["message" if path.startswith("/v1") else slice(None)]


def test_one_answer_has_vectors_and_sparse_ones_as_each_alone(client: TestClient) -> None:
    both = ask(client, input=TEXTS, embedding_types=["float", "sparse"])["data"]
    alone = ask(client, input=TEXTS)["data"]
    pairs = ask(client, "/embed_sparse", inputs=TEXTS)
    for row, vector, weights in zip(both, alone, pairs, strict=True):
        np.testing.assert_allclose(row["embedding"]["float"], vector["embedding"], atol=1e-5)
        sparse = row["sparse_embedding"]
        assert sparse["indices"] == sorted(set(sparse["indices"]))
        assert [each["index"] for each in weights] == sparse["indices"]
        np.testing.assert_allclose([each["value"] for each in weights], sparse["values"], 1e-5)
        assert len(sparse["tokens"]) == len(sparse["indices"])
        assert min(sparse["values"], default=1) > 0
    tokens = {token for row in both for token in row["sparse_embedding"]["tokens"]}
    assert {"hello"} < tokens <= {"hello", "world", *"abcdefg"}


def test_both_are_computed_in_one_pass_and_only_what_is_missing_after_that(
    client: TestClient,
) -> None:
    def batches() -> float:
        text = client.get("/metrics").text
        line = next(
            x for x in text.splitlines() if x.startswith('embedsvc_batches_total{model="m3"')
        )
        return float(line.rpartition(" ")[2])

    ask(client, input="load")
    begin = batches()
    ask(client, input="x y z q", embedding_types=["float", "sparse"])
    assert batches() == begin + 1
    ask(client, input="x y z q")
    ask(client, "/embed_sparse", inputs="x y z q")
    assert batches() == begin + 1


def test_sparse_vectors_alone(client: TestClient) -> None:
    (row,) = ask(client, input=TEXTS[0], embedding_types=["sparse"])["data"]
    assert row["embedding"] == {}
    assert row["sparse_embedding"]["indices"]
    for model in ("m3", "bert-splade", "bert-routed"):
        (row,) = ask(client, model=model, input="a b", embedding_types=["sparse"])["data"]
        (pairs,) = ask(client, "/embed_sparse", model=model, inputs="a b")
        assert [each["index"] for each in pairs] == row["sparse_embedding"]["indices"]


def test_the_root_path_gives_what_the_model_does(client: TestClient) -> None:
    pairs = ask(client, "/embed_sparse", model="bert-splade", inputs="a b")
    assert ask(client, "/", model="bert-splade", inputs="a b") == pairs


def test_the_largest_weights_and_those_above_a_bound(client: TestClient) -> None:
    asked = {"model": "bert-splade", "input": TEXTS[0], "embedding_types": ["sparse"]}
    whole = ask(client, **asked)["data"][0]["sparse_embedding"]
    few = ask(client, **asked, max_active_dims=3)["data"][0]["sparse_embedding"]
    largest = sorted(zip(whole["values"], whole["indices"], strict=True), reverse=True)[:3]
    assert few["indices"] == sorted(index for _, index in largest)
    above = ask(client, **asked, min_weight=0.5)["data"][0]["sparse_embedding"]["values"]
    assert above == [value for value in whole["values"] if value >= 0.5]
    (pairs,) = ask(client, "/embed_sparse", model="bert-splade", inputs=TEXTS[0], max_active_dims=2)
    assert len(pairs) == 2


def test_the_first_model_of_sparse_vectors_answers_where_none_is_named(client: TestClient) -> None:
    ask(client, input="a")  # its files say what it gives
    answer = client.post("/embed_sparse", json={"inputs": "a"})
    assert (answer.status_code, answer.headers["openai-model"]) == (200, "m3")


@pytest.mark.parametrize("name", ["bert-routed", "distilbert-routed"])
def test_queries_of_a_router_need_no_pass_and_equal_the_reference(
    client: TestClient, name: str
) -> None:
    size = len(SPARSE_CASES[name].query_weights())
    expected = recorded(name)["queries"]
    asked = {"model": name, "input": list(QUERIES), "embedding_types": ["sparse"]}
    rows = [
        ask(client, **asked, input_type="query")["data"],
        ask(client, **asked | {"model": f"{name}:query"})["data"],
    ]
    for found in rows:
        weights = np.zeros((len(QUERIES), size), np.float32)
        for row, each in zip(weights, found, strict=True):
            row[each["sparse_embedding"]["indices"]] = each["sparse_embedding"]["values"]
        np.testing.assert_allclose(weights, expected, atol=1e-6)
    documents = ask(client, **asked, input_type="document")["data"]
    assert documents == ask(client, **asked)["data"] != rows[0]


def test_weights_of_queries_are_read_by_id(tmp_path: Path) -> None:
    case = SPARSE_CASES["bert-routed"]
    checkpoint = open_checkpoint(Card(id="m", path=case.write(tmp_path)))
    tokenizer = open_tokenizer(checkpoint, None)
    found = read_query_weights(checkpoint, tokenizer)
    assert found is not None
    assert (found.before, found.after, found.by_default) == (1, 1, False)
    assert found.weights.tolist() == case.query_weights().tolist()


def test_long_texts_that_are_split_have_the_largest_weights_of_their_parts(
    client: TestClient,
) -> None:
    long = " ".join([*("abcdefghij"[n % 10] for n in range(150)), "hello"])
    asked = {"input": long, "embedding_types": ["float", "sparse"], "truncate": "chunk"}
    answer = client.post("/v1/embeddings", json={"model": "m3"} | asked)
    assert (answer.status_code, answer.headers["x-embedsvc-split"]) == (200, "1")
    sparse = answer.json()["data"][0]["sparse_embedding"]
    assert len(sparse["indices"]) == len(set(sparse["indices"]))
    assert "hello" in sparse["tokens"], "of the last part alone"


def test_what_a_model_does_not_give_is_said(client: TestClient) -> None:
    said = refused(client, model="bert-splade", input="a")
    assert said == "Model `bert-splade` gives sparse vectors, not vectors."
    said = refused(client, input="a b", embedding_types=["sparse"], chunking={"size": 2})
    assert said == "Late chunking gives vectors alone, and no sparse ones."
    assert "max_active_dims" in refused(client, input="a", max_active_dims=0)
    assert "min_weight" in refused(client, input="a", min_weight=-1)
    assert "embedding_types" in refused(client, input="a", embedding_types=["sparse", "sparse"])


def test_the_list_of_models_and_info_say_what_a_model_gives(client: TestClient) -> None:
    ask(client, "/embed_sparse", model="bert-splade", inputs="a")
    ask(client, input="a")
    model = client.get("/v1/models/bert-splade").json()
    assert (model["tasks"], model["capabilities"]) == (["sparse"], ["sparse_embedding"])
    assert model["dimensions"] is None
    model = client.get("/v1/models/m3").json()
    assert (model["tasks"], model["capabilities"]) == (
        ["embed", "sparse"], ["embedding", "sparse_embedding"])  # fmt: skip


def test_weights_are_left_out_while_the_event_loop_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = 0

    def off_the_loop(*given: Any) -> SparseVector:
        nonlocal called
        called += 1
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return pruned(*given)

    monkeypatch.setattr("embedsvc.serving.embed_request.pruned", off_the_loop)
    pairs = ask(client, "/embed_sparse", inputs=TEXTS, max_active_dims=1)
    assert [len(weights) for weights in pairs] == [1] * len(TEXTS)
    assert called == len(TEXTS)
