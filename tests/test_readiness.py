"""`/ready` cannot lie: it computes to know that a model is well, and says which is broken."""

import numpy as np
import pytest

from embedsvc.inference.encoder import Encoder
from embedsvc.texts.item import Item
from tests.support.watched_server import WatchedServer


def fails(error: Exception):
    def run(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        raise error

    return run


def test_a_server_that_is_well_is_ready_and_computes_to_know_it(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    whole = Encoder.run

    def counted(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        computed.append(len(items))
        return whole(self, items, head)

    monkeypatch.setattr(Encoder, "run", counted)
    assert watched.get("/ready") == (200, "ready")
    assert computed == [1]
    assert watched.get("/ready") == (200, "ready")
    assert computed == [1]  # just now is new enough
    watched.forget_that_it_was_well()
    assert watched.get("/ready") == (200, "ready")
    assert computed == [1, 1]


def test_what_clients_have_computed_need_not_be_tried(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched.embed().status_code == 200
    monkeypatch.setattr(Encoder, "run", fails(AssertionError("it was tried")))
    assert watched.get("/ready") == (200, "ready")


def test_a_model_that_raises_is_not_ready_until_it_computes_again(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", fails(RuntimeError("no such kernel")))
        assert watched.embed().status_code == 500
        status, said = watched.get("/ready")
        assert (status, "org/tiny" in said, "no such kernel" in said) == (503, True, True)
        assert watched.get("/health")[0] == 200
    assert watched.get("/ready") == (200, "ready")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_model_that_gives_no_vectors_is_never_a_200(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def hidden(*_: object) -> np.ndarray:
        return np.full((1, 16), value, np.float32)

    (engine,) = watched.watch._registry.engines().values()
    assert watched.embed("hello").status_code == 200
    heads = engine._encoder.heads
    monkeypatch.setitem(heads, "vector", heads["vector"]._replace(forward=hidden))
    assert watched.embed("a b c").status_code == 500
    status, said = watched.get("/ready")
    assert (status, "broken" in said) == (503, True)


def test_a_model_that_computes_something_else_than_before_is_broken(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watched.get("/ready")[0] == 200
    whole = Encoder.run

    def negative(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        found = whole(self, items, head)
        return [(-np.frombuffer(result, np.float32)).tobytes() for result in found]

    monkeypatch.setattr(Encoder, "run", negative)
    watched.forget_that_it_was_well()
    status, said = watched.get("/ready")
    assert (status, "what it did before" in said) == (503, True)


def test_a_model_that_stays_broken_ends_the_server(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "run", fails(RuntimeError("broken")))
    watched.forget_that_it_was_well()
    assert watched.get("/ready")[0] == 503
    watched.look(59)
    assert watched.get("/health")[0] == 200
    watched.look(2)
    assert watched.get("/health")[0] == 503
    watched.look(6)
    assert watched.ended


@pytest.mark.parametrize("seconds", [20, 59, 63])
def test_a_broken_model_that_is_unloaded_does_not_end_the_server(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", fails(RuntimeError("broken")))
        watched.forget_that_it_was_well()
        assert watched.get("/ready")[0] == 503
        watched.look(seconds)
    (instance,) = watched.client.get("/v1/instances").json()["data"]
    watched.client.delete(f"/v1/instances/{instance['id']}")
    watched.look(100)
    assert not watched.ended
    assert watched.get("/health")[0] == 200
    assert watched.embed().status_code == 200
    assert watched.get("/ready") == (200, "ready")


def test_a_model_that_was_broken_and_is_loaded_anew_is_well(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", fails(RuntimeError("broken")))
        watched.forget_that_it_was_well()
        assert watched.get("/ready")[0] == 503
    (instance,) = watched.client.get("/v1/instances").json()["data"]
    watched.client.delete(f"/v1/instances/{instance['id']}")
    assert watched.embed().status_code == 200
    assert watched.get("/ready") == (200, "ready")
    assert watched.watch.well
