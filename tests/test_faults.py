"""What breaks beneath the server, put in at its seams: the device, the disk, the hub, the clock.

Who asks meanwhile is answered right or refused cleanly, and all is well again afterwards.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.inference.encoder import Encoder
from embedsvc.serving.cache_file import COMPLAINT_SECONDS, CacheFile
from embedsvc.texts.item import Item
from tests.support.app import serve

TEXTS = ["hello", "a b c", "d e f a", "world a b c d e"]


@pytest.fixture
def client(cards_file: Path) -> Iterator[TestClient]:
    with serve(models=cards_file) as client:
        client.headers["cache-control"] = "no-store, no-cache"
        yield client


def embed(client: TestClient, texts: list[str]) -> tuple[int, list[list[float]]]:
    answer = client.post("/v1/embeddings", json={"model": "org/tiny", "input": texts})
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        return answer.status_code, []
    return 200, [row["embedding"] for row in answer.json()["data"]]


# --- the device --------------------------------------------------------------------------------


class Flaky:
    """An encoder of which every so many passes fail, in turn by raising and by giving NaN."""

    def __init__(self, every: int) -> None:
        self.every, self.passes, self.whole = every, 0, Encoder.run

    def __call__(self, encoder: Encoder, items: list[Item], head: str) -> list[bytes]:
        self.passes += 1
        if self.passes % (2 * self.every) == 0:
            raise MemoryError("out of memory on the device")
        if self.passes % self.every == 0:
            nothing = np.full((len(items), 16), np.nan, np.float32)
            return encoder.collect(encoder.begin(items, head)._replace(rows=nothing))
        return self.whole(encoder, items, head)


def test_passes_that_fail_now_and_then_cost_nobody_a_wrong_vector(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, right = embed(client, TEXTS)
    assert status == 200
    flaky = Flaky(every=3)

    def run(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        return flaky(self, items, head)

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", run)
        statuses: list[int] = []
        for _ in range(30):
            status, found = embed(client, TEXTS)
            statuses.append(status)
            if status == 200:
                assert np.allclose(found, right, atol=1e-6)
    assert set(statuses) <= {200, 500}
    # A batch that fails is tried by halves, so a fault that passes costs hardly anything.
    assert statuses.count(200) >= 20
    assert client.get("/ready").status_code == 200
    assert embed(client, TEXTS) == (200, right)


# --- the disk ----------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_costs_no_answer(
    cards_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    with serve(models=cards_file, cache_folder=folder) as client:
        status, right = embed(client, TEXTS)
        assert status == 200

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(CacheFile, "_opened", full)
        client.headers["cache-control"] = "no-cache"
        assert embed(client, [*TEXTS, "b"])[0] == 200
        assert np.allclose(embed(client, TEXTS)[1], right, atol=1e-6)
        assert client.get("/ready").status_code == 200
        while 'disk_failures_total{model="org/tiny"} 0.0' in client.get("/metrics").text:
            pass  # until it was tried


# --- the hub -----------------------------------------------------------------------------------


def test_a_hub_that_is_down_is_a_503_and_the_models_that_are_here_answer(
    cards_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> str:
        raise ConnectionError("the hub does not answer")

    monkeypatch.setattr("huggingface_hub.snapshot_download", down)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with cards_file.open("a") as cards:
        cards.write("[models.far]\nrepo = 'org/far'\n")
    with serve(models=cards_file) as client:
        answer = client.post("/v1/embeddings", json={"model": "far", "input": "a"})
        assert answer.status_code == 503
        assert "org/far" in answer.json()["error"]["message"]
        assert embed(client, TEXTS)[0] == 200
        assert client.get("/ready").status_code == 200  # nobody preloaded it
        text = client.get("/metrics").text
        assert 'embedsvc_instance_state{model="far",state="failed"} 1.0' in text


# --- the clock ---------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3e8, 3e8])
def test_a_clock_that_is_set_changes_no_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    status, right = embed(client, TEXTS)
    whole = time.time
    monkeypatch.setattr(time, "time", lambda: whole() + jump)
    assert embed(client, TEXTS) == (status, right)
    assert client.get("/ready").status_code == 200
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("jump", [-3e8, 3e8])
def test_a_failing_disk_is_told_of_also_when_the_clock_was_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, jump: float
) -> None:
    (tmp_path / "folder").write_text("a file where the folder should be")
    now = [1e9]
    table = CacheFile(tmp_path / "folder" / "x.sqlite", max_bytes=1 << 20, clock=lambda: now[0])
    table.write({b"k": b"v" * 16}, ())
    now[0] += jump
    table.write({b"k": b"v" * 16}, ())
    assert len(caplog.records) == 2
    now[0] += COMPLAINT_SECONDS / 2
    table.write({b"k": b"v" * 16}, ())
    assert len(caplog.records) == 2
    table.close()


def test_what_is_used_after_the_clock_was_set_back_is_known_to_be_used(tmp_path: Path) -> None:
    now = [2e9]
    table = CacheFile(tmp_path / "x.sqlite", max_bytes=1 << 20, clock=lambda: now[0])
    table.write({b"k" * 16: b"v" * 16}, ())
    now[0] = 1e9
    table.write({}, [b"k" * 16])
    ((used,),) = table._opened().execute("SELECT used FROM vectors").fetchall()
    assert used == 1e9
    table.close()


# --- the event loop ----------------------------------------------------------------------------


def test_a_bug_in_one_request_is_that_request_s_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("embedsvc.serving.engine.Engine.embed", broken)
        assert embed(client, TEXTS)[0] == 500
    assert embed(client, TEXTS)[0] == 200
    assert 'embedsvc_refusals_total{reason="bug"} 1.0' in client.get("/metrics").text
