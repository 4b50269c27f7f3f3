"""Prompts: none unless asked for, and then by any of the names clients have for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.app import serve
from tests.support.checkpoints import write_bert, write_json


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("prompts")
    write_bert(folder / "own")
    prompts = {
        "prompts": {"search_query": "x ", "search_document": "y ", "clustering": "z ", "STS": "w "}
    }
    write_json(folder / "own" / "config_sentence_transformers.json", prompts)
    (folder / "models.toml").write_text(
        f"""
        [models.e5]
        path = '{tiny_folder}'
        preload = true
        aliases = ["other"]
        prompts = {{query = "q ", document = "d "}}
        prompt_aliases = {{"e5-query" = "query", "e5-document" = "document"}}
        [models.plain]
        path = '{tiny_folder}'
        [models.own]
        path = 'own'
        preload = true
        """
    )
    with serve(models=folder / "models.toml") as client:
        yield client


def vector(client: TestClient, model: str, text: str, **fields: object) -> list[float]:
    answer = client.post("/v1/embeddings", json={"model": model, "input": text} | fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    return answer.json()["data"][0]["embedding"]


def test_nothing_is_added_by_default(client: TestClient) -> None:
    assert vector(client, "e5", "hello") == vector(client, "plain", "hello")


@pytest.mark.parametrize(
    ("model", "fields", "prompt"),
    [
        ("e5:query", {}, "q "),
        ("other:query", {}, "q "),
        ("e5:document", {}, "d "),
        ("e5:passage", {}, "d "),
        ("e5-query", {}, "q "),
        ("e5-document", {}, "d "),
        ("e5", {"input_type": "query"}, "q "),
        ("e5", {"input_type": "search_query"}, "q "),
        ("e5", {"input_type": "document"}, "d "),
        ("e5", {"input_type": "passage"}, "d "),
        ("e5", {"input_type": "search_document"}, "d "),
        ("e5", {"prompt_name": "query"}, "q "),
        ("e5", {"prompt": "hello world "}, "hello world "),
        ("e5:document", {"input_type": "query"}, "q "),
        ("e5", {"input_type": "document", "prompt_name": "query"}, "q "),
        ("e5:query", {"prompt": ""}, ""),
        ("e5", {"input_type": None, "prompt_name": None, "prompt": None}, ""),
        ("own:query", {}, "x "),
        ("own:STS", {}, "w "),
        ("own:document", {}, "y "),
        ("own", {"prompt_name": "clustering"}, "z "),
        ("own", {"input_type": "search_query"}, "x "),
        ("plain:query", {}, ""),  # a model without prompts embeds both alike
        ("plain", {"input_type": "classification"}, ""),
    ],
)
def test_a_prompt_is_asked_for_by_many_names(
    client: TestClient, model: str, fields: dict[str, object], prompt: str
) -> None:
    assert vector(client, model, "hello", **fields) == vector(client, "plain", f"{prompt}hello")


def test_the_prompts_tokens_count(client: TestClient) -> None:
    for model, tokens in (("e5", 3), ("e5:query", 4)):
        answer = client.post("/v1/embeddings", json={"model": model, "input": "hello"})
        assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_the_list_of_models_has_what_can_be_asked_for(client: TestClient) -> None:
    listed = {model["id"] for model in client.get("/v1/models").json()["data"]}
    assert listed == {
        *("e5", "other", "e5-query", "e5-document", "e5:query", "e5:document", "plain", "own"),
        *("own:search_query", "own:search_document", "own:clustering", "own:STS"),
    }
    for name in listed:
        assert client.get(f"/v1/models/{name}").json()["id"] == name
        vector(client, name, "hello")


@pytest.mark.parametrize("model", ["e5:nothing", "plain:clusters", "none:query", "e5-query:query"])
def test_a_prompt_that_is_nobodys_is_an_unknown_model(client: TestClient, model: str) -> None:
    answer = client.post("/v1/embeddings", json={"model": model, "input": "hello"})
    assert answer.status_code == 404
    assert client.get(f"/v1/models/{model}").status_code == 404
