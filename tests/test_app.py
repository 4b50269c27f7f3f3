"""OpenAI's API over a tiny model: answers, the cache, readiness, how models are loaded."""

import asyncio
import base64
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.catalog.cards import Dtype
from embedsvc.errors import CardsError, CheckpointError
from embedsvc.inference.heads import vector
from embedsvc.serving.engine import Engine
from embedsvc.serving.registry import Registry
from embedsvc.settings import Settings
from embedsvc.texts.item import Item
from embedsvc.web.app import create_app
from tests.support.checkpoints import write_bert


def embed(client: TestClient, **fields: object):
    return client.post("/v1/embeddings", json={"model": "org/tiny", "input": "hello"} | fields)


def test_a_string_is_answered_with_one_unit_vector(client: TestClient) -> None:
    answer = embed(client).json()
    assert answer["object"] == "list"
    assert answer["model"] == "org/tiny"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}  # [CLS] hello [SEP]
    (row,) = answer["data"]
    assert (row["object"], row["index"], len(row["embedding"])) == ("embedding", 0, 16)
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)


def test_a_list_is_answered_in_its_order(client: TestClient) -> None:
    texts = ["hello", "a b c d e f", "world", "hello world"]
    together = embed(client, input=texts).json()
    assert together["usage"]["prompt_tokens"] == 3 + 8 + 3 + 4
    for index, (text, row) in enumerate(zip(texts, together["data"], strict=True)):
        alone = embed(client, input=text).json()["data"][0]["embedding"]
        assert row["index"] == index
        assert np.abs(np.subtract(row["embedding"], alone)).max() <= 1e-6


def test_base64_holds_the_same_vector(client: TestClient) -> None:
    floats = embed(client).json()["data"][0]["embedding"]
    packed = embed(client, encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == np.float32(floats).tolist()


def test_an_alias_is_as_good_as_the_id_and_is_echoed(client: TestClient) -> None:
    by_alias = embed(client, model="embed").json()
    assert by_alias["model"] == "embed"
    assert by_alias["data"] == embed(client).json()["data"]


def test_models_are_listed_by_id_and_alias(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["org/tiny", "embed"]
    for model in listed["data"]:
        assert (model["object"], model["owned_by"]) == ("model", "embedsvc")
        assert isinstance(model["created"], int)
        for path in (model["id"], model["id"].replace("/", "%2F")):
            assert client.get(f"/v1/models/{path}").json() == model


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 200


def test_metrics_count_what_was_computed(client: TestClient) -> None:
    embed(client, input=["hello", "a b c"])
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        'embedsvc_texts_total{model="org/tiny"} 2.0',
        'embedsvc_tokens_total{model="org/tiny"} 8.0',
        'embedsvc_waiting_tokens{model="org/tiny"} 0.0',
        'embedsvc_padding_ratio{model="org/tiny"} 0.0',
    ):
        assert line in lines


def computed(client: TestClient) -> int:
    (line,) = [
        x for x in client.get("/metrics").text.splitlines() if x.startswith("embedsvc_texts")
    ]
    return int(float(line.split()[-1]))


def test_a_text_asked_for_again_is_not_computed_again(client: TestClient) -> None:
    first = embed(client, input=["hello", "world", "hello"]).json()
    assert computed(client) == 2
    again = embed(client, input=["world", "hello", "a"]).json()
    assert computed(client) == 3
    assert again["data"][1]["embedding"] == first["data"][0]["embedding"]
    assert again["usage"]["prompt_tokens"] == 9
    assert 'embedsvc_cache_hits_total{model="org/tiny"} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    ("control", "first", "second"), [("no-cache", 1, 1), ("max-age=0, No-Store", 1, 2), ("", 1, 1)]
)
def test_a_request_may_keep_out_of_the_cache(
    client: TestClient, control: str, first: int, second: int
) -> None:
    client.headers["cache-control"] = control
    embed(client)
    assert computed(client) == first
    client.headers["cache-control"] = ""
    embed(client)
    assert computed(client) == second
    client.headers["cache-control"] = control
    embed(client)
    assert computed(client) == second + (control == "no-cache")


def test_vectors_on_disk_outlive_the_server(cards_file: Path, tmp_path: Path) -> None:
    settings = Settings(models=cards_file, backend="numpy", cache_folder=tmp_path / "cache")
    answers: list[object] = []
    for expected in (2, 0):
        with TestClient(create_app(settings), base_url="http://localhost") as client:
            answers.append(embed(client, input=["hello", "a b"]).json())
            assert computed(client) == expected
    assert answers[0] == answers[1]
    assert len(list((tmp_path / "cache").glob("*.sqlite"))) == 1


def test_a_cache_folder_that_cannot_be_written_ends_the_start(cards_file: Path) -> None:
    settings = Settings(models=cards_file, backend="numpy", cache_folder=cards_file)
    with (
        pytest.raises(CardsError, match=r"cache_folder .*File exists"),
        TestClient(create_app(settings), base_url="http://localhost"),
    ):
        pass


def test_a_long_answer_is_whole_and_in_order(client: TestClient) -> None:
    texts = ["a " * (1 + i % 29) for i in range(300)]
    rows = embed(client, input=texts).json()["data"]
    assert [row["index"] for row in rows] == list(range(300))
    assert np.allclose(rows[299]["embedding"], rows[299 - 29]["embedding"], atol=1e-6)


def test_a_model_that_gives_nan_is_a_500_for_its_text_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry: Registry = client.app.state.registry  # type: ignore[attr-defined]
    bad = registry.cards.by_id["org/tiny"]
    assert bad.preload
    client.headers["cache-control"] = "no-cache"
    whole = vector.pack

    def pack(weights: vector.Weights, rows: np.ndarray, items: list[Item]) -> list[bytes]:
        for row, item in zip(rows, items, strict=True):
            if len(item) == 5:  # "a b c"
                row[0] = np.nan
        return whole(weights, rows, items)

    monkeypatch.setattr(vector, "pack", pack)
    answer = embed(client, input=["hello", "a b c"])
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "finite" in answer.json()["error"]["message"]
    assert embed(client, input=["hello", "a b"]).status_code == 200


def test_two_passes_may_be_in_flight_on_mlx(
    cards_file: Path, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedsvc.inference.ops import mlx

    whole = mlx.MlxOps.__init__

    def pipelined(self: mlx.MlxOps, dtype: Dtype | None = None) -> None:
        whole(self, dtype)  # on a machine without a GPU, whose passes take as long to begin
        self.pipelined = mlx._can_wait_elsewhere()
        self.slots = 2

    monkeypatch.setattr(mlx.MlxOps, "__init__", pipelined)
    app = create_app(Settings(models=cards_file, backend="mlx"))
    with TestClient(app, base_url="http://localhost") as piped:
        assert app.state.registry.device.ops.pipelined
        texts = ["a " * (1 + i % 29) for i in range(100)]
        answers = [embed(c, input=texts).json()["data"] for c in (piped, client)]
    found, expected = ([row["embedding"] for row in rows] for rows in answers)
    assert np.abs(np.subtract(found, expected)).max() <= 1e-5


def test_a_card_that_is_not_preloaded_is_loaded_once_when_first_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedsvc.serving.loader as loading_module

    write_bert(tmp_path / "tiny")
    (tmp_path / "models.toml").write_text("[models.lazy]\npath = 'tiny'\n")
    opened: list[str] = []
    whole = loading_module.open_checkpoint

    def counted(card):
        opened.append(card.id)
        return whole(card)

    monkeypatch.setattr(loading_module, "open_checkpoint", counted)
    app = create_app(Settings(models=tmp_path / "models.toml", backend="numpy"))

    async def ask() -> None:
        async with app.router.lifespan_context(app):
            assert opened == []
            registry: Registry = app.state.registry

            async def use() -> Engine:
                async with registry.use("lazy") as engine:
                    return engine

            engines = await asyncio.gather(*(use() for _ in range(5)))
            assert opened == ["lazy"]
            assert len(set(map(id, engines))) == 1

    asyncio.run(ask())


def test_a_model_that_does_not_load_is_a_503_with_the_reason_and_is_tried_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "models.toml").write_text("[models.late]\npath = 'tiny'\n")
    with TestClient(
        create_app(Settings(models=tmp_path / "models.toml")), base_url="http://localhost"
    ) as client:
        answer = embed(client, model="late")
        assert answer.status_code == 503
        assert "no folder" in answer.json()["error"]["message"]
        write_bert(tmp_path / "tiny")
        assert embed(client, model="late").status_code == 200


def test_a_preloaded_model_that_does_not_load_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.x]\npath = 'none'\npreload = true\n")
    app = create_app(Settings(models=tmp_path / "models.toml"))
    with (
        pytest.raises(CheckpointError, match="`x`: no files; no folder"),
        TestClient(app, base_url="http://localhost"),
    ):
        pass
