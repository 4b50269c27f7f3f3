"""What exo's clients ask of a cluster: where a model would go, what there is, what has happened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.app import serve
from tests.support.exo import refusal
from tests.support.exo_server import get, message_of, serve_tiny
from tests.support.hub import Hub, Refusal, serve_repository
from tests.support.tiny_registry import write_cards

JACCL = "No cycle where every node supports a backend in ['MlxMetal'] for a"
TENSOR = "Requested Tensor sharding but this model does not support tensor parallelism: a"
NO_ROOM = "No cycles found with sufficient memory"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TestClient]:
    with serve_tiny(tmp_path) as client:
        yield client


def error_of(client: TestClient, path: str, status: int = 400) -> str:
    answer = client.get(path)
    assert refusal(answer.json(), "ErrorResponse") is None
    assert answer.json()["error"]["code"] == answer.status_code == status
    return answer.json()["error"]["message"]


# --- where a model would go ----------------------------------------------------------------------


def test_each_way_to_place_a_model_is_shown_or_says_why_it_is_none(
    server: TestClient, tmp_path: Path
) -> None:
    size = write_cards(tmp_path)
    node = get(server, "/node_id", "str")
    shown = get(server, "/instance/previews?model_id=a", "PlacementPreviewResponse")["previews"]
    ring = shown.pop(0)
    assert refusal(ring["instance"], "Instance") is None
    assert ring["memory_delta_by_node"] == {node: size}
    assert [(each["sharding"], each["instance_meta"], each["error"]) for each in shown] == [
        ("Pipeline", "MlxJaccl", JACCL),
        ("Tensor", "MlxRing", TENSOR),
        ("Tensor", "MlxJaccl", TENSOR),
    ]
    assert all(each["instance"] is None for each in shown)
    server.post("/instance", json={"instance": ring["instance"]})
    message_of(server.get("/instance/await?model_id=a"))
    again = get(server, "/instance/previews?model_id=a")["previews"][0]
    assert again["instance"] == ring["instance"]
    assert again["memory_delta_by_node"] == {node: 0}


def test_a_placement_asks_for_what_one_node_has(server: TestClient) -> None:
    node = get(server, "/node_id", "str")
    for query, said in (
        ("min_nodes=2", NO_ROOM),
        ("min_nodes=0", "Invalid 'min_nodes'"),
        ("sharding=Tensor", TENSOR),
        ("instance_meta=MlxJaccl", JACCL),
        ("sharding=Pipe", "Invalid value for 'sharding' = Pipe."),
    ):
        assert said in error_of(server, f"/instance/placement?model_id=a&{query}")
    for path in ("/instance/placement", "/instance/previews"):
        assert "Failed to load model card: The model `none`" in error_of(
            server, f"{path}?model_id=none"
        )
        assert "Missing required parameter: 'model_id'." in error_of(server, path)
    one, other = (
        get(server, f"/instance/previews?model_id=a&node_ids={ids}")["previews"][0]["error"]
        for ids in (node, f"{node}&node_ids=another")
    )
    assert (one, other) == (None, NO_ROOM)


def test_what_does_not_fit_is_said_before_it_is_loaded(tmp_path: Path) -> None:
    size = write_cards(tmp_path, b="pin = true")
    with serve(models=tmp_path / "models.toml", max_memory=2 * size - 1) as client:
        assert get(client, "/instance/previews?model_id=a")["previews"][0]["error"] is None
        client.post("/place_instance", json={"model_id": "b"})
        message_of(client.get("/instance/await?model_id=b"))
        assert get(client, "/instance/previews?model_id=a")["previews"][0]["error"] == NO_ROOM
        assert error_of(client, "/instance/placement?model_id=a") == NO_ROOM
        (memory,) = get(client, "/state/nodeMemory").values()
        assert memory["ramAvailable"]["inBytes"] == size - 1
        answer = client.post("/instance", json={"model_id": "a"})
        assert answer.status_code == 400
        said = answer.json()["error"]["message"]
        assert said.startswith("Insufficient memory to create instance. Required: 0.0GB, Avail")
        assert client.post("/instance", json={"model_id": "b"}).status_code == 200


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_repository(tmp_path, monkeypatch) as hub:
        yield hub


def test_of_a_model_that_is_not_here_the_hub_tells(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.m]\nrepo = 'org/model'\n")
    with serve(models=tmp_path / "models.toml") as client:
        (first, *_) = get(client, "/instance/previews?model_id=m")["previews"]
        weights = sum(len(hub.files[name]) for name in hub.files if name.endswith("safetensors"))
        assert list(first["memory_delta_by_node"].values()) == [weights]
        shards = first["instance"]["MlxRingInstance"]["shardAssignments"]["runnerToShard"]
        (shard,) = shards.values()
        card = shard["PipelineShardMetadata"]["modelCard"]
        assert (card["nLayers"], card["storageSize"]) == (2, {"inBytes": weights})
        assert [each.name for each in hub.asked] == ["config.json"]
        get(client, "/instance/previews?model_id=m")
        assert len(hub.asked) == 1  # it is remembered
        assert get(client, "/models?status=downloaded", "ModelList")["data"] == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"[]", "has a config.json that is no JSON object"),
        (b"{" * 100_000, "has a config.json that is no JSON object"),
        (b" " * (9 << 20), "at too great a length"),
    ],
    ids=["array", "deep", "long"],
)
def test_what_the_hub_tells_is_not_believed(
    hub: Hub, tmp_path: Path, config: bytes, said: str
) -> None:
    hub.files["config.json"] = config
    (tmp_path / "models.toml").write_text("[models.m]\nrepo = 'org/model'\n")
    with serve(models=tmp_path / "models.toml") as client:
        path = "/instance/placement?model_id=m"
        found = error_of(client, path)
        assert found.startswith("Failed to load model card: model `m`: repository org/model ")
        assert said in found
        hub.refusal = Refusal(404)
        assert "org/model does not exist" in error_of(client, path)


# --- what there is -------------------------------------------------------------------------------


def test_parts_of_the_state_are_found_by_their_path(server: TestClient) -> None:
    state = get(server, "/state", "State")
    (node,) = state["topology"]["nodes"]
    assert get(server, "/state/topology/nodes/0") == node == get(server, "/node_id")
    assert get(server, "/state/topology") == state["topology"]
    assert get(server, "/state/nodeBackends") == {node: ["MlxCpu"]}
    assert get(server, "/state/lastEventAppliedIdx") == len(get(server, "/events")) - 1
    for path in ("none", "topology/nodes/7", "topology/nodes/x", "lastEventAppliedIdx/x"):
        said = f"unable to find path '{path.replace('/', '.')}' in state json"
        assert error_of(server, f"/state/{path}", 404) == said


def test_events_keep_their_ids_while_nothing_changes(server: TestClient) -> None:
    server.post("/place_instance", json={"model_id": "a"})
    message_of(server.get("/instance/await?model_id=a"))

    def ids() -> list[str]:
        return [inside["event_id"] for each in get(server, "/events") for inside in each.values()]

    first = ids()
    assert ids() == first
    assert len(set(first)) == len(first)


def listed(client: TestClient, query: str = "") -> dict[str, dict[str, Any]]:
    told = get(client, f"/models{query}", "ModelList")
    assert told == get(client, f"/v1/models{query}")
    return {each["id"]: each for each in told["data"]}


def test_models_are_listed_as_exo_lists_them(tmp_path: Path) -> None:
    write_cards(tmp_path, a="aliases = ['org/first']")
    with (tmp_path / "models.toml").open("a") as stream:
        stream.write("[models.away]\npath = 'nowhere'\n")
    with serve(models=tmp_path / "models.toml") as client:
        assert set(listed(client)) == {"a", "org/first", "b", "c", "away"}
        assert set(listed(client, "?status=downloaded")) == {"a", "org/first", "b", "c"}
        assert listed(client)["a"]["context_length"] == 0
        get(client, "/instance/previews?model_id=a")
        told = listed(client)["org/first"]
        assert (
            told
            | {
                "hugging_face_id": "a",
                "name": "first",
                "context_length": 32,
                "family": "bert",
                "capabilities": ["embedding"],
                "is_custom": False,
            }
            == told
        )
        assert get(client, "/v1/feature-flags") == {"disaggregation": False}
        assert get(client, "/v1/instance-links") == []
        assert get(client, "/onboarding") == {"completed": True}


def test_models_without_a_card_are_added_and_forgotten(tmp_path: Path) -> None:
    write_cards(tmp_path)
    with serve(models=tmp_path / "models.toml", allow_ad_hoc=True) as client:
        for name, said in (("./none", "Failed to fetch model: The model `./none`"), ("a", "")):
            answer = client.post("/models/add", json={"model_id": name})
            assert answer.status_code == (400 if said else 200)
            assert said in answer.text
        get(client, "/instance/previews?model_id=./tiny")
        assert set(listed(client)) == {"a", "b", "c"}  # asking adds nothing
        added = client.post("/models/add", json={"model_id": "./tiny"}).json()
        assert refusal(added, "ModelListModel") is None
        assert (added["id"], added["is_custom"]) == ("./tiny", True)
        client.post("/place_instance", json={"model_id": "./tiny"})
        message_of(client.get("/instance/await?model_id=./tiny"))
        state = get(client, "/state", "State")
        assert state["customModelCards"]["./tiny"]["isCustom"]
        told = get(client, "/events")
        assert [refusal(each, "Event", camel=False) for each in told] == [None] * len(told)
        deleted = client.delete("/models/custom/.%2Ftiny")
        assert deleted.json() == {"message": "Model card deleted", "model_id": "./tiny"}
        assert set(listed(client)) == {"a", "b", "c"}
        for name in ("a", "./tiny"):
            assert client.delete(f"/models/custom/{name.replace('/', '%2F')}").status_code == 404
    with serve(models=tmp_path / "models.toml") as client:
        assert client.post("/models/add", json={"model_id": "./tiny"}).status_code == 400
