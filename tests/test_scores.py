"""Scores of pairs and labels of texts, in the shapes of vLLM, infinity and TEI."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.web.dialects import score, tei
from embedsvc.web.scoring import FOR
from tests.support.app import serve
from tests.support.checkpoints import write_bert
from tests.support.rerankers import (
    DOCUMENTS,
    best_first,
    logits,
    post,
    serve_models,
    sigmoid,
    write_models,
)

LABELS = ["no", "maybe", "yes"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_models(tmp_path_factory.mktemp("models")) as client:
        yield client


def found(server: TestClient, path: str = "/score", **body: Any) -> list[float]:
    rows = post(server, path, **{"model": "ranker"} | body).json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return [row["score"] for row in rows]


def softmax(values: Any) -> np.ndarray:
    powers = np.exp(np.asarray(values, np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


def labels_of(server: TestClient, inputs: Any, **fields: Any) -> Any:
    """What TEI's route answers, whose order is not the model's, as rows in the model's order."""
    answer = post(server, "/predict", model="sorter", inputs=inputs, **fields).json()
    rows = [answer] if isinstance(answer[0], dict) else answer
    for row in rows:
        assert [each["score"] for each in row] == sorted(
            (each["score"] for each in row), reverse=True
        )
    by_label = [{each["label"]: each["score"] for each in row} for row in rows]
    return [[row[label] for label in LABELS] for row in by_label]


# --- vLLM's /score -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", score.PAIRS)
def test_a_text_is_scored_with_each_of_others_in_their_order(
    server: TestClient, path: str, names: tuple[str, str]
) -> None:
    body = {names[0]: "hello", names[1]: DOCUMENTS}
    answer = post(server, path, model="ranker", **body)
    read = msgspec.json.decode(answer.content, type=score.ScoreAnswer)
    expected = sigmoid(logits(server, "hello", DOCUMENTS))
    assert np.abs([row.score for row in read.data] - expected).max() < 1e-6
    assert [row.index for row in read.data] == list(range(len(DOCUMENTS)))
    assert read.usage.total_tokens == sum(len(text.split()) + 4 for text in DOCUMENTS)


def test_pairs_are_one_and_one_one_and_many_or_as_many_of_each(server: TestClient) -> None:
    one = found(server, text_1="a", text_2="b")
    assert found(server, text_1=["a"], text_2=["b"]) == one
    assert found(server, text_1={"content": [{"text": "a"}]}, text_2=[{"text": "b"}]) == one
    zipped = found(server, text_1=["a", "b"], text_2=["b", "c"])
    again = [*one, *found(server, text_1="b", text_2="c")]
    assert np.abs(np.subtract(zipped, again)).max() < 1e-6
    refused = server.post("/score", json={"model": "ranker", "text_1": ["a"] * 2, "text_2": ["b"]})
    assert refused.status_code == 400
    assert "Invalid 'text_1': expected one text" in refused.json()["error"]["message"]


def test_a_model_of_vectors_gives_cosines(server: TestClient) -> None:
    answer = post(server, "/score", model="embed", text_1="hello", text_2=["hello", "a b"])
    assert answer.headers["x-embedsvc-scores"] == "cosine"
    same, other = (row["score"] for row in answer.json()["data"])
    assert same == pytest.approx(1, abs=1e-6)
    assert -1 <= other < same


def test_a_score_is_raw_for_those_who_ask(server: TestClient) -> None:
    (plain,) = found(server, text_1="a", text_2="b")
    for flag in ({"use_activation": False}, {"raw_scores": "true"}):
        (raw,) = found(server, text_1="a", text_2="b", **flag)
        assert sigmoid(raw) == pytest.approx(plain, abs=1e-6)


# --- labels --------------------------------------------------------------------------------------


def test_tei_s_clients_get_the_labels_of_texts_and_of_pairs(server: TestClient) -> None:
    assert labels_of(server, "hello") == labels_of(server, ["hello"])
    pair = labels_of(server, ["hello", "a b"])
    both = labels_of(server, [["hello", "a b"], ["hello"]])
    assert np.abs(np.subtract(both, [*pair, *labels_of(server, "hello")])).max() < 1e-6
    assert pair != labels_of(server, ["a b", "hello"])
    raw = labels_of(server, [["hello"], ["a b"]], raw_scores=True)
    given = labels_of(server, [["hello"], ["a b"]])
    assert np.abs(softmax(raw) - given).max() < 1e-6
    assert post(server, "/predict", inputs="hello").headers["openai-model"] == "sorter"


def test_one_label_has_the_sigmoid_of_its_score(server: TestClient) -> None:
    answer = post(server, "/predict", model="ranker", inputs=["hello", "a b c"]).json()
    (expected,) = sigmoid(logits(server, "hello", ["a b c"]))
    assert answer == [{"score": pytest.approx(expected, abs=1e-6), "label": "LABEL_0"}]


@pytest.mark.parametrize("path", ["/classify", "/v1/classify", "/infinity/classify"])
def test_infinity_s_clients_get_all_labels_best_first(server: TestClient, path: str) -> None:
    texts = ["hello", "a b", "you see"]
    answer = post(server, path, model="sorter", input=texts, raw_scores=False)
    read = msgspec.json.decode(answer.content, type=score.ClassifyAnswer)
    assert read.object == "classify"
    expected = labels_of(server, [[text] for text in texts])
    for row, values in zip(read.data, expected, strict=True):
        assert isinstance(row, list)
        assert [each.label for each in row] == [LABELS[i] for i in best_first(values)]
        assert np.abs([each.score for each in row] - np.sort(values)[::-1]).max() < 1e-6
    assert read.usage.total_tokens == sum(len(text.split()) + 2 for text in texts)


@pytest.mark.parametrize("body", [{"input": "hello"}, {"input": ["hello"], "use_activation": True}])
def test_vllm_s_clients_get_the_best_label_and_all_probabilities(
    server: TestClient, body: dict[str, Any]
) -> None:
    answer = post(server, "/classify", model="sorter", **body)
    read = msgspec.json.decode(answer.content, type=score.ClassifyAnswer)
    (row,) = read.data
    assert isinstance(row, score.LabelRow)
    (expected,) = labels_of(server, "hello")
    assert np.abs(np.subtract(row.probs, expected)).max() < 1e-6
    assert (row.label, row.num_classes) == (LABELS[int(np.argmax(expected))], 3)
    raw = post(server, "/classify", model="sorter", input="hello", activation=False).json()
    assert np.abs(softmax(raw["data"][0]["probs"]) - expected).max() < 1e-6


def test_a_model_without_labels_or_with_too_many_says_so(server: TestClient) -> None:
    for path, body, said in (
        ("/predict", {"inputs": "a", "model": "embed"}, "gives vectors, not scores"),
        ("/classify", {"input": "a", "model": "embed"}, "gives vectors, not scores"),
        ("/score", {"text_1": "a", "text_2": "b", "model": "sorter"}, "for 3 labels, not one"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": "sorter"}, "for 3 labels"),
        ("/embed", {"inputs": "a", "model": "ranker"}, "gives scores, not vectors"),
    ):
        answer = server.post(path, json=body)
        assert answer.status_code == 400
        assert said in answer.text


# --- TEI's /similarity, /info and / --------------------------------------------------------------


def test_sentences_are_compared_with_one(server: TestClient) -> None:
    sentences = ["hello", "a b", "you see"]
    inputs = {"source_sentence": "hello", "sentences": sentences}
    answer = post(server, "/similarity", inputs=inputs)
    vectors = np.array(post(server, "/embed", inputs=["hello", *sentences]).json())
    assert np.abs(answer.json() - vectors[1:] @ vectors[0]).max() < 1e-6
    how = {"truncate": True, "truncation_direction": "Left", "prompt_name": None}
    assert post(server, "/similarity", inputs=inputs, parameters=how).json() == answer.json()
    pairs = post(server, "/similarity", inputs=inputs, model="ranker").json()
    assert np.abs(pairs - sigmoid(logits(server, "hello", sentences))).max() < 1e-6


def test_the_root_does_what_the_model_is_for(server: TestClient) -> None:
    assert len(post(server, "/", inputs=["a", "b"]).json()[0]) == 16
    label = post(server, "/", inputs="hello", model="sorter").json()
    assert label == post(server, "/predict", inputs="hello", model="sorter").json()
    ranks = post(server, "/", query="hello", texts=["a", "b"], return_text=True).json()
    assert {rank["text"] for rank in ranks} == {"a", "b"}


@pytest.mark.parametrize(("task", "kind"), [("rerank", "reranker"), ("classify", "classifier")])
def test_tei_tells_what_the_first_model_is_for(
    tmp_path_factory: pytest.TempPathFactory, task: str, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("info")
    with serve_models(folder, only=task) as client:
        told = client.get("/info").json()["model_type"]
        assert list(told) == [kind]
        labels = told[kind]["id2label"].values()
        assert list(labels) == (LABELS if task == "classify" else ["LABEL_0"])
        assert msgspec.json.decode(client.get("/info").content, type=tei.Info).model_id
        named = post(client, "/", inputs=["a", "b"]).json()
        assert set(named[0]) == {"score", "label"}


# --- what other routes tell of it ----------------------------------------------------------------


def test_models_say_what_they_are_for(server: TestClient) -> None:
    tasks = {model["id"]: model["tasks"] for model in server.get("/v1/models").json()["data"]}
    assert tasks == {
        "org/tiny": ["embed"],
        "embed": ["embed"],
        "ranker": ["rerank"],
        "rerank-v3.5": ["rerank"],
        "sorter": ["classify"],
    }
    assert set(FOR) == {"embed", "rerank", "classify", "sparse"}


RERANKER = '[models.{id}]\npath = "{path}"\ntask = "rerank"\n'


def test_a_model_that_is_loaded_or_here_answers_who_names_none(tmp_path: Path) -> None:
    file = write_models(tmp_path, only="rerank")
    ranker = file.read_text()
    others = RERANKER.format(id="late", path="none"), RERANKER.format(id="second", path="ranker")
    file.write_text(others[0] + ranker + others[1])
    with serve(models=file) as client:
        body = {"query": "a", "texts": ["b"]}
        assert post(client, "/rerank", **body).headers["openai-model"] == "ranker"
        (ranker_instance,) = client.get("/v1/instances").json()["data"]
        assert ranker_instance["tasks"] == ["rerank"]
        post(client, "/score", model="second", text_1="a", text_2="b")
        assert post(client, "/rerank", **body).headers["openai-model"] == "ranker"
        unloading = client.delete(f"/v1/instances/{ranker_instance['id']}")
        assert unloading.status_code == 200
        answer = post(client, "/v1/rerank", query="a", documents=["b"])
        assert answer.headers["openai-model"] == answer.json()["model"] == "second"


@pytest.mark.parametrize(
    ("task", "path", "body"),
    [
        ("rerank", "/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("classify", "/classify", {"input": "a"}),
    ],
)
def test_who_names_no_model_where_none_is_here_is_told_what_to_do(
    tmp_path: Path, task: str, path: str, body: dict[str, Any]
) -> None:
    write_bert(tmp_path / "tiny")
    late = RERANKER.format(id="late", path="none").replace("rerank", task)
    (tmp_path / "models.toml").write_text(f'{late}[models.tiny]\npath = "tiny"\n')
    with serve(models=tmp_path / "models.toml") as client:
        refused = client.post(path, json=body)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        said = refused.json()["error"]["message"]
        assert "no folder" in said
        assert f"names no `model`, and none that can {task} is here" in said
        assert "`embedsvc pull late`" in said
        assert "names no" not in client.post(path, json=body | {"model": "late"}).text
        if task == "rerank":
            assert "which may be one that embeds" in said
            assert post(client, path, model="tiny", **body).headers["x-embedsvc-scores"] == "cosine"


def test_metrics_count_texts_and_documents_by_task(server: TestClient) -> None:
    def count(model: str, task: str) -> float:
        name = f'embedsvc_inputs_total{{model="{model}",task="{task}"}} '
        lines = [line for line in server.get("/metrics").text.split("\n") if line.startswith(name)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0

    before = [count(*each) for each in (("ranker", "rerank"), ("org/tiny", "rerank"))]
    post(server, "/v1/rerank", model="ranker", query="a", documents=["b", "c", "d"])
    post(server, "/v1/rerank", model="embed", query="a", documents=["b"])
    after = [count(*each) for each in (("ranker", "rerank"), ("org/tiny", "rerank"))]
    assert np.subtract(after, before).tolist() == [3, 1]


def test_a_pair_is_computed_once(server: TestClient) -> None:
    def hits() -> float:
        name = 'embedsvc_cache_hits_total{model="ranker"} '
        (line,) = [x for x in server.get("/metrics").text.split("\n") if x.startswith(name)]
        return float(line.rpartition(" ")[2])

    body = {"model": "ranker", "query": "you see", "documents": ["hello a", "hello b"]}
    first = post(server, "/v1/rerank", **body).json()["results"]
    before = hits()
    assert post(server, "/v1/rerank", **body).json()["results"] == first
    assert hits() == before + 2
    server.post("/v1/rerank", json=body, headers={"cache-control": "no-cache"})
    assert hits() == before + 2
