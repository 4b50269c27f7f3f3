"""Instances over HTTP, as this server spells them."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from embedsvc.settings import Settings
from embedsvc.web.app import create_app
from tests.support.app import serve
from tests.support.tiny_registry import write_cards

ABOUT = {
    "a": "aliases = ['first']\nprompts = {query = 'find: '}",
    "b": "prompts = {query = 'find: '}",
    "c": "pooling = 'cls'",
}
"""Lines of their cards."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TestClient]:
    write_cards(tmp_path, **ABOUT)
    with serve(models=tmp_path / "models.toml") as client:
        yield client


def events(answer: Response) -> list[dict]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    messages = answer.text.split("\n\n")
    assert messages.pop() == ""
    assert messages.pop(0) == ": keep-alive"
    return [json.loads(message.removeprefix("data: ")) for message in messages]


def load(client: TestClient, model: str, **fields: object) -> dict:
    """An instance of a model, when it is ready."""
    made = client.post("/v1/instances", json={"model": model} | fields)
    assert made.status_code == 200, made.text
    return events(client.get(f"/v1/instances/{made.json()['id']}/events"))[-1]


def embed(client: TestClient, model: str) -> Response:
    return client.post("/v1/embeddings", json={"model": model, "input": "hello"})


def test_an_instance_is_made_watched_listed_and_removed(server: TestClient) -> None:
    made = server.post("/v1/instances", json={"model": "first", "keep_alive": 60, "pin": True})
    instance = made.json()
    path = f"/v1/instances/{instance['id']}"
    told = events(server.get(f"{path}/events"))
    assert told[-1] == server.get(path).json()
    ready = told[-1]
    assert ready.pop("progress") == {"done": ready["memory_bytes"], "total": ready["memory_bytes"]}
    assert ready == {
        "id": instance["id"],
        "object": "instance",
        "model": "a",
        "tasks": ["embed"],
        "state": "ready",
        "error": None,
        "memory_bytes": ready["memory_bytes"],
        "users": 0,
        "pinned": True,
        "keep_alive": 60.0,
    }
    listed = server.get("/v1/instances").json()
    assert [each["id"] for each in listed["data"]] == [instance["id"]]
    assert listed["memory_bytes"] == ready["memory_bytes"] < listed["max_memory_bytes"]
    again = server.post("/v1/instances", json={"model": "a"}).json()
    assert again["id"] == instance["id"]
    assert server.delete(path).json()["id"] == instance["id"]
    assert embed(server, "a").status_code == 200
    listed = server.get("/v1/instances").json()["data"]
    anew = [each for each in listed if each["state"] == "ready"]
    assert [each["model"] for each in anew] == ["a"]
    assert anew[0]["id"] != instance["id"]


def test_progress_counts_up_in_bytes(server: TestClient) -> None:
    made = server.post("/v1/instances", json={"model": "b"}).json()
    told = events(server.get(f"/v1/instances/{made['id']}/events"))
    done = [each["progress"]["done"] for each in told]
    assert done == sorted(done)
    assert told[-1]["progress"]["done"] == told[-1]["memory_bytes"] > 0
    assert {each["state"] for each in told} <= {"loading", "ready"}


def test_a_model_that_fails_says_why(server: TestClient, tmp_path: Path) -> None:
    (tmp_path / "tiny" / "model.safetensors").unlink()
    told = load(server, "a")
    assert told["state"] == "failed"
    assert "model.safetensors is missing" in told["error"]
    assert server.get("/v1/models/a").json()["state"] == "failed"
    assert "model.safetensors is missing" in embed(server, "a").json()["error"]["message"]


def test_models_tell_what_they_are_once_loaded(server: TestClient) -> None:
    before = server.get("/v1/models/first").json()
    assert (before["state"], before["fingerprint"], before["pooling"]) == ("unloaded", None, None)
    assert server.get("/v1/models/c").json()["pooling"] == "cls"
    answer = embed(server, "a")
    after = server.get("/v1/models/first").json()
    assert after == before | {
        "state": "ready",
        "dimensions": 16,
        "max_tokens": 32,
        "context_length": 32,
        "architecture": "bert",
        "family": "bert",
        "pooling": "mean",
        "pooling_source": "its pooling module",
        "dtype": "float32",
        "prompts": {"query": "find: "},
        "fingerprint": answer.headers["x-embedsvc-fingerprint"],
    }


def test_equal_fingerprints_mean_comparable_vectors(server: TestClient) -> None:
    found = {name: embed(server, name) for name in "abc"}
    prints = {name: each.headers["x-embedsvc-fingerprint"] for name, each in found.items()}
    vectors = {name: each.json()["data"][0]["embedding"] for name, each in found.items()}
    assert prints["a"] == prints["b"] != prints["c"]
    assert vectors["a"] == vectors["b"] != vectors["c"]


def test_a_model_still_loading_is_a_503_that_says_when_to_come_back(tmp_path: Path) -> None:
    write_cards(tmp_path)
    with serve(models=tmp_path / "models.toml", load_wait_seconds=0) as client:
        answer = embed(client, "a")
        assert answer.status_code == 503
        assert "`a` is loading" in answer.json()["error"]["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 59
        assert load(client, "a")["state"] == "ready"
        assert embed(client, "a").status_code == 200


def test_models_without_a_card_are_loaded_where_the_server_allows_it(tmp_path: Path) -> None:
    write_cards(tmp_path)
    file = tmp_path / "models.toml"
    with serve(models=file) as client:
        for path in ("/v1/instances", "/instance", "/place_instance"):
            answer = client.post(path, json={"model": "./tiny", "model_id": "./tiny"})
            assert answer.status_code == 404
    with serve(models=file, allow_ad_hoc=True) as client:
        assert load(client, "./tiny")["state"] == "ready"
        assert embed(client, "./tiny").status_code == 200
        assert embed(client, "./other").status_code == 404  # embedding makes no cards
        for elsewhere in ("/etc", "./..", "../x", "a//b", "a/../b", "-/x"):
            answer = client.post("/v1/instances", json={"model": elsewhere})
            assert answer.status_code == 404, elsewhere


def test_what_is_wrong_is_said(server: TestClient) -> None:
    for body, said in (
        ({}, "model"),
        ({"model": ""}, "Invalid 'model'"),
        ({"model": "a", "keep_alive": "soon"}, "Invalid 'keep_alive': must be a time, as 90, 10m"),
        ({"model": "a", "keep_alive": 1e300}, "Invalid 'keep_alive': must be at most 100 years"),
        ({"model": "a", "pin": "yes"}, "Invalid 'pin'"),
    ):
        answer = server.post("/v1/instances", json=body)
        assert answer.status_code == 400
        assert said in answer.json()["error"]["message"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = server.request(method, f"/v1/instances/{uuid4()}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "instance_not_found")


CHANGES = [
    ("POST", "/v1/instances"),
    ("DELETE", f"/v1/instances/{uuid4()}"),
    ("POST", "/instance"),
    ("POST", "/place_instance"),
    ("DELETE", f"/instance/{uuid4()}"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_state_is_changed_only_by_who_may(tmp_path: Path, method: str, path: str) -> None:
    write_cards(tmp_path)
    keys = Settings(models=tmp_path / "models.toml", api_keys=("sk-right-key-123456",))
    with TestClient(create_app(keys), base_url="http://localhost") as client:
        assert client.request(method, path, json={"model": "a"}).status_code == 401
        right = {"authorization": "Bearer sk-right-key-123456"}
        assert client.get("/v1/instances", headers=right).json()["data"] == []
        sent = client.request(method, path, json={"model": "a", "model_id": "a"}, headers=right)
        assert sent.status_code == (200 if method == "POST" else 404)
    with serve(models=tmp_path / "models.toml") as client:
        foreign = {"origin": "https://evil.example"}
        assert client.request(method, path, json={"model": "a"}, headers=foreign).status_code == 403
        assert client.get("/v1/instances").json()["data"] == []
