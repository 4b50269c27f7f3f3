"""Instances as exo's clients know them: every answer is one that exo's own strict classes take."""

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from embedsvc.web import events
from embedsvc.web.dialects import exo_schema
from tests.support.app import serve
from tests.support.exo import LENIENT, STRICT, TAGGED, fields_of, refusal, spelled
from tests.support.exo_server import Gates, gates, get, message_of, serve_tiny, wait_for
from tests.support.hub import serve_repository

__all__ = ["gates"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TestClient]:
    with serve_tiny(tmp_path) as client:
        yield client


def place(client: TestClient, model: str = "a") -> str:
    """The id of a model's new instance."""
    answer = client.post("/place_instance", json={"model_id": model, "sharding": "Pipeline"})
    assert answer.status_code == 200, answer.text
    assert refusal(answer.json(), "CreateInstanceResponse") is None
    return answer.json()["instance_id"]


def check(client: TestClient, instance: str, state: dict) -> None:
    """Check that all routes tell of an instance, as the state does, in words of exo's."""
    described = get(client, f"/instance/{instance}", "Instance")
    assert state["instances"][instance] == described
    assert get(client, f"/state/instances/{instance}", "Instance") == described
    assert get(client, f"/state/runners/{instance}", "RunnerStatus")
    shards = described["MlxRingInstance"]["shardAssignments"]
    (node,) = state["topology"]["nodes"]
    assert shards["nodeToRunner"] == {node: instance}
    assert set(shards["runnerToShard"]) == {instance} <= set(state["runners"])
    assert list(described["MlxRingInstance"]["hostsByNode"]) == [node]
    told = get(client, "/events")
    assert [refusal(event, "Event", camel=False) for event in told] == [None] * len(told)
    assert len(told) - 1 == state["lastEventAppliedIdx"]


# --- what the structs are, beside what exo's classes are -----------------------------------------


@pytest.mark.parametrize("name", [name for name in [*STRICT, *TAGGED] if hasattr(exo_schema, name)])
def test_a_struct_has_the_fields_that_exos_class_has_and_no_others(name: str) -> None:
    written = getattr(exo_schema, name).__struct_encode_fields__
    assert set(written) == {spelled(key, camel=True) for key in fields_of(name)}


def test_the_reader_refuses_what_exo_would() -> None:
    card = {"modelId": "a", "storageSize": {"inBytes": 5}, "nLayers": 2, "hiddenSize": 3}
    card |= {"supportsTensor": False, "tasks": [], "backends": ["MlxCpu"]}
    assert refusal(card, "ModelCard") is None
    for change, said in (
        ({"nLayers": 0}, r"$.nLayers: 0 is no Positive"),
        ({"nLayers": "2"}, r"$.nLayers: '2' is no Positive"),
        ({"tasks": ["TextEmbedding"]}, r"$.tasks.0: 'TextEmbedding' is no ModelTask"),
        ({"storageSize": 5}, "$.storageSize: is no Memory"),
        ({"dimensions": 8}, "$: ModelCard has no ['dimensions']"),
        ({"supportsTensor": 0}, "$.supportsTensor: 0 is no bool"),
    ):
        assert refusal(card | change, "ModelCard") == said
    del card["backends"]
    assert refusal(card, "ModelCard") == "$: ModelCard lacks backends"
    assert refusal({"RunnerFailed": {"errorMessage": "x"}}, "RunnerStatus") is not None
    assert refusal({"RunnerBroken": {}}, "RunnerStatus") is not None
    assert refusal({"n_layers": 2}, "ModelCard") is not None
    assert "ErrorInfo" in LENIENT


# --- the life of an instance ---------------------------------------------------------------------


def test_an_instance_is_told_of_in_every_state(server: TestClient, gates: Gates) -> None:
    gates.load.clear()
    instance = place(server)
    state = wait_for(server, instance, "RunnerLoading")
    while not (loading := state["runners"][instance]["RunnerLoading"])["layersLoaded"]:
        state = get(server, "/state", "State")
    assert loading == {"layersLoaded": 1, "totalLayers": 2}
    (node,) = state["topology"]["nodes"]
    assert [list(each) for each in state["downloads"][node]] == [["DownloadCompleted"]]
    check(server, instance, state)
    gates.load.set()
    state = wait_for(server, instance, "RunnerReady")
    assert state["runners"][instance] == {"RunnerReady": {"prefillServerPort": None}}
    check(server, instance, state)
    card = server.post("/place_instance", json={"model_id": "a"}).json()["model_card"]
    known = {"modelId": "a", "nLayers": 2, "hiddenSize": 16, "family": "bert", "contextLength": 32}
    assert card | known == card
    assert card["storageSize"]["inBytes"] > 1000
    gates.close.clear()
    removed = server.delete(f"/instance/{instance}")
    assert refusal(removed.json(), "DeleteInstanceResponse") is None
    assert removed.json()["instance_id"] == instance
    state = wait_for(server, instance, "RunnerShuttingDown")
    check(server, instance, state)
    gates.close.set()
    while instance in get(server, "/state", "State")["instances"]:
        pass
    answer = server.get(f"/instance/{instance}")
    assert answer.json()["error"] == {
        "message": "Instance not found",
        "type": "Not Found",
        "param": None,
        "code": 404,
    }


def test_a_model_that_fails_says_why(server: TestClient, tmp_path: Path, gates: Gates) -> None:
    gates.load.clear()
    late = place(server, "b")
    wait_for(server, late, "RunnerLoading")
    (tmp_path / "tiny" / "model.safetensors").unlink()
    early = place(server, "a")
    gates.load.set()
    for instance in (early, late):
        state = wait_for(server, instance, "RunnerFailed")
        failed = state["runners"][instance]["RunnerFailed"]
        assert failed["diagnostics"] == []
        assert "model.safetensors" in failed["errorMessage"]
        check(server, instance, state)
    (node,) = state["topology"]["nodes"]
    kinds = {kind for download in state["downloads"][node] for kind in download}
    assert kinds == {"DownloadFailed", "DownloadCompleted"}
    told = message_of(server.get("/instance/await?model_id=a&timeout_seconds=10"))
    assert refusal(told, "AwaitInstanceTimeoutMessage") is None
    assert "model.safetensors is missing" in told["message"]


def test_a_download_is_told_of_with_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = threading.Event()
    with serve_repository(tmp_path, monkeypatch) as hub:
        hub.between = lambda sent: going.wait(10) if sent >= 8192 else None
        (tmp_path / "models.toml").write_text("[models.m]\nrepo = 'org/model'\n")
        with serve(models=tmp_path / "models.toml") as client:
            instance = place(client, "m")
            path = "/state/downloads/" + get(client, "/node_id", "str") + "/0"
            while True:
                told = get(client, path, "DownloadProgress")
                progress = told["DownloadOngoing"]["downloadProgress"]
                if progress["downloaded"]["inBytes"] >= 8192:
                    break
            assert progress["total"]["inBytes"] > progress["downloaded"]["inBytes"]
            check(client, instance, wait_for(client, instance, "RunnerIdle"))
            going.set()
            check(client, instance, wait_for(client, instance, "RunnerReady"))


# --- commands ------------------------------------------------------------------------------------


def test_what_a_preview_shows_is_what_is_made_of_it(server: TestClient) -> None:
    offered = get(server, "/instance/placement?model_id=a", "Instance")
    answer = server.post("/instance", json={"instance": offered})
    assert refusal(answer.json(), "CreateInstanceResponse") is None
    identity = offered["MlxRingInstance"]["instanceId"]
    assert answer.json()["instance_id"] == identity
    ready = message_of(server.get("/instance/await?model_id=a&timeout_seconds=10"))
    assert refusal(ready, "AwaitInstanceReadyMessage", camel=False) is None
    made = get(server, f"/instance/{identity}", "Instance")
    assert made == offered
    assert ready["instance"]["MlxRingInstance"]["instance_id"] == identity
    again = get(server, "/instance/placement?model_id=a", "Instance")
    assert again == made  # there is one of a model


def test_older_clients_name_the_model_alone(server: TestClient) -> None:
    made = server.post("/instance", json={"model_id": "a", "min_nodes": 1}).json()
    assert refusal(made, "CreateInstanceResponse") is None
    inside = server.post("/instance", json={"instance": {"model_id": "a"}}).json()
    assert inside["instance_id"] == made["instance_id"]


def test_a_model_that_failed_is_tried_again_under_the_id_it_had(
    server: TestClient, tmp_path: Path
) -> None:
    offered = get(server, "/instance/placement?model_id=a")
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.rename(tmp_path / "away")
    identity = server.post("/instance", json={"instance": offered}).json()["instance_id"]
    wait_for(server, identity, "RunnerFailed")
    (tmp_path / "away").rename(weights)
    assert server.post("/instance", json={"instance": offered}).status_code == 200
    wait_for(server, identity, "RunnerReady")


def test_what_is_wrong_with_a_command_is_said(server: TestClient, gates: Gates) -> None:
    taken = place(server, "b")
    gates.close.clear()
    leaving = place(server, "c")
    wait_for(server, leaving, "RunnerReady")
    server.delete(f"/instance/{leaving}")
    shards = {"shardAssignments": {"modelId": "c"}}
    for instance, said in (
        ({}, "Invalid 'instance': it names no model."),
        ({"x": {"instanceId": "seven"} | shards}, "Invalid 'instance': its id must be a UUID."),
        ({"x": {"instanceId": taken} | shards}, "Invalid 'instance': another instance has its id."),
        ({"x": {"instanceId": leaving} | shards}, "Invalid 'instance': another instance has its"),
    ):
        answer = server.post("/instance", json={"instance": instance})
        assert answer.status_code == 400
        assert refusal(answer.json(), "ErrorResponse") is None
        assert said in answer.json()["error"]["message"]
    gates.open()
    for path in ("/instance", "/place_instance"):
        answer = server.post(path, json={"model_id": "none"})
        assert answer.json()["error"]["code"] == answer.status_code == 404
    for method in ("GET", "DELETE"):
        for identity in (uuid4(), "none"):
            assert server.request(method, f"/instance/{identity}").status_code == 404


# --- waiting -------------------------------------------------------------------------------------


def test_awaiting_an_instance_ends_in_time(server: TestClient) -> None:
    told = message_of(server.get("/instance/await?model_id=a&timeout_seconds=0.01"))
    assert refusal(told, "AwaitInstanceTimeoutMessage") is None
    for query, said in (
        ("", "Missing required parameter: 'model_id'."),
        ("?model_id=a&timeout_seconds=-1", "Invalid 'timeout_seconds'"),
        ("?model_id=a&timeout_seconds=301", "Invalid 'timeout_seconds'"),
        ("?model_id=a&timeout_seconds=nan", "Invalid 'timeout_seconds'"),
        ("?model_id=a&timeout_seconds=x", "Invalid 'timeout_seconds'"),
    ):
        answer = server.get(f"/instance/await{query}")
        assert answer.status_code == 400, query
        assert said in answer.json()["error"]["message"]
    assert server.get("/instance/await?model_id=none").status_code == 404


def test_a_stream_that_is_silent_is_kept_alive(
    server: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.01)
    with server.stream("GET", "/instance/await?model_id=a&timeout_seconds=0.2") as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert len(lines) > 2
    assert set(lines[:-1]) == {": keep-alive"}
    assert lines[-1].startswith("data: ")
