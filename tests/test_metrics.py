"""`/metrics`: every request is in it once, by what became of it, and by what it cost."""

import re
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from embedsvc.inference.encoder import Encoder
from embedsvc.telemetry.record import Record
from embedsvc.texts.item import Item
from tests.support.app import serve


class Figures(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """What a scrape said, by name and labels."""

    def of(self, name: str, **labels: str) -> float:
        return self[f"embedsvc_{name}", frozenset(labels.items())]


def scrape(client: TestClient) -> Figures:
    found = Figures()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def embed(client: TestClient, **fields: object):
    return client.post("/v1/embeddings", json={"model": "org/tiny", "input": "hello"} | fields)


def test_requests_are_counted_by_route_and_status(client: TestClient) -> None:
    for _ in range(3):
        embed(client)
    embed(client, model="x")
    client.get("/v1/models/org/tiny")
    client.get("/some/where/else")
    client.put("/v1/embeddings")
    found = scrape(client)
    assert found.of("requests_total", route="/v1/embeddings", status="200") == 3
    assert found.of("requests_total", route="/v1/embeddings", status="404") == 1
    assert found.of("requests_total", route="/v1/embeddings", status="405") == 1
    assert found.of("requests_total", route="/v1/models/{id:path}", status="200") == 1
    assert found.of("requests_total", route="", status="404") == 1


def test_paths_that_clients_make_up_are_no_labels(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/made/up/{number}")
    text = client.get("/metrics").text
    assert "made" not in text
    assert 'embedsvc_requests_total{route="",status="404"} 20.0' in text


def test_refusals_are_counted_by_reason(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(client, input="")
    embed(client, model="x")
    embed(client, input="a", dimensions=1000)
    client.get("/nowhere")
    client.get("/v1/models", headers={"host": "evil.example"})
    client.post("/v1/embeddings", content=b"{")

    def fails(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        raise RuntimeError("broken")

    monkeypatch.setattr(Encoder, "run", fails)
    embed(client, input="never seen")
    found = scrape(client)
    reasons = ("bad_request", "empty_input", "model_not_found", "no_route", "forbidden")
    counts = [found.of("refusals_total", reason=reason) for reason in reasons]
    assert counts == [2, 1, 1, 1, 1]
    assert found.of("refusals_total", reason="embedding_failed") == 1


def test_time_is_measured_where_it_goes(client: TestClient) -> None:
    embed(client, input=["a", "b c", "d e f"])
    embed(client, input="a")  # remembered: nothing waits, nothing is computed
    embed(client, input="")
    found = scrape(client)
    counts = {
        name: found.of(f"{name}_count", model="org/tiny")
        for name in (
            "request_seconds",
            "tokenize_seconds",
            "queue_seconds",
            "forward_seconds",
            "batch_texts",
            "batch_tokens",
        )
    }
    assert counts["request_seconds"] == counts["tokenize_seconds"] == 2
    assert counts["queue_seconds"] == 1
    assert counts["forward_seconds"] == counts["batch_texts"] == counts["batch_tokens"] >= 1
    assert found.of("batch_texts_sum", model="org/tiny") == 3
    assert found.of("batch_tokens_sum", model="org/tiny") == 3 + 4 + 5
    whole = found.of("request_seconds_sum", model="org/tiny")
    assert 0 < found.of("forward_seconds_sum", model="org/tiny") < whole


def test_the_device_the_build_and_the_models_are_named(client: TestClient) -> None:
    found = scrape(client)
    assert found.of("instance_state", model="org/tiny", state="ready") == 1
    assert found.of("instance_state", model="org/tiny", state="failed") == 0
    assert 0 < found.of("weights_bytes") < found.of("weights_limit_bytes")
    assert found.of("device_memory_bytes", kind="active") > 1e6
    assert found.of("device_memory_bytes", kind="peak") > 1e6
    text = client.get("/metrics").text
    assert re.search(r'embedsvc_build_info\{python="3[\d.]+",version="[\d.]+"\} 1\.0', text)
    assert re.search(r'embedsvc_device_info\{backend="numpy",device=".+",dtype="float32"\}', text)


def test_mlx_tells_its_own_memory(cards_file) -> None:
    with serve(models=cards_file, backend="mlx") as client:
        embed(client)
        found = scrape(client)
    kinds = [found.of("device_memory_bytes", kind=kind) for kind in ("active", "cache", "peak")]
    assert kinds[2] >= kinds[0] > 0


def test_models_without_end_are_labels_with_one(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.metrics.METRIC_MODELS", 2)
    metrics = client.app.state.metrics  # type: ignore[attr-defined]
    for number in range(10):
        record = Record(0.0, b"id", "POST", "/v1/embeddings")
        record.model = f"model-{number}"
        metrics.count(record)
    found = scrape(client)
    counts = {
        name: found.of("request_seconds_count", model=name) for name in metrics.request_seconds
    }
    assert counts == {"model-0": 1, "model-1": 1, "others": 8}


def test_instances_are_counted_in_one_pass(client: TestClient) -> None:
    class Instance:
        looked = 0

        def __init__(self, number: int) -> None:
            self.card = SimpleNamespace(id=f"model-{number % 300}")

        @property
        def state(self) -> str:
            Instance.looked += 1
            return "failed"

    metrics = client.app.state.metrics  # type: ignore[attr-defined]
    registry = metrics.registry
    many = [Instance(number) for number in range(600)]
    metrics.registry = SimpleNamespace(
        instances=lambda: many,
        engines=registry.engines,
        memory=registry.memory,
        device=registry.device,
    )
    found = scrape(client)
    metrics.registry = registry
    assert found.of("instance_state", model="model-7", state="failed") == 1
    assert found.of("instance_state", model="model-7", state="ready") == 0
    assert Instance.looked == len(many)
