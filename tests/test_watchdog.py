"""Health that cannot lie: what hangs or computes nonsense is found out, told, and ended."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from embedsvc.exits import EXIT_HUNG
from embedsvc.inference.device import Device, Work
from embedsvc.inference.encoder import Encoder
from embedsvc.serving.watchdog import Watch
from embedsvc.texts.item import Item
from tests.support.app import serve
from tests.support.project import ROOT


class Kept:
    """A server over a tiny model, and its watch, which is told here how time passes."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.watch: Watch = client.app.state.watch  # type: ignore[attr-defined]
        self.ended = False
        self.watch._end = self._count
        self.watch._stop.set()  # no ticks but ours

    def _count(self) -> None:
        self.ended = True

    def get(self, path: str) -> tuple[int, str]:
        answer = self.client.get(path)
        body = answer.json()
        return answer.status_code, body.get("error", {}).get("message", body.get("status"))

    def look(self, seconds: int) -> None:
        for _ in range(seconds):
            self.watch.look(1.0)
            self.client.portal.call(lambda: None)  # type: ignore[union-attr] - the loop turned

    def embed(self, text: str = "hello"):
        return self.client.post("/v1/embeddings", json={"model": "org/tiny", "input": text})

    def forget_that_it_was_well(self) -> None:
        (engine,) = self.watch._registry.engines().values()
        engine._checked = engine.batcher.succeeded = -np.inf


@pytest.fixture
def kept(cards_file: Path) -> Iterator[Kept]:
    with serve(models=cards_file) as client:
        yield Kept(client)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """From now on the device hangs in every pass, until this is set."""
    released, whole = Event(), Encoder.run

    def hang_in_here(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        released.wait()
        return whole(self, items, head)

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", hang_in_here)
        yield released
        released.set()


@contextmanager
def asking(kept: Kept, hanging: Event) -> Iterator[Future[Any]]:
    """While a request hangs."""
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(kept.embed)
        try:
            while not kept.watch._device.working:
                pass
            yield asked
        finally:
            hanging.set()


def fails(error: Exception):
    def run(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        raise error

    return run


def test_a_server_that_is_well_is_ready_and_computes_to_know_it(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    whole = Encoder.run

    def counted(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        computed.append(len(items))
        return whole(self, items, head)

    monkeypatch.setattr(Encoder, "run", counted)
    assert kept.get("/ready") == (200, "ready")
    assert computed == [1]
    assert kept.get("/ready") == (200, "ready")
    assert computed == [1]  # just now is new enough
    kept.forget_that_it_was_well()
    assert kept.get("/ready") == (200, "ready")
    assert computed == [1, 1]


def test_what_clients_have_computed_need_not_be_tried(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kept.embed().status_code == 200
    monkeypatch.setattr(Encoder, "run", fails(AssertionError("it was tried")))
    assert kept.get("/ready") == (200, "ready")


def test_a_model_that_raises_is_not_ready_until_it_computes_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", fails(RuntimeError("no such kernel")))
        assert kept.embed().status_code == 500
        status, said = kept.get("/ready")
        assert (status, "org/tiny" in said, "no such kernel" in said) == (503, True, True)
        assert kept.get("/health")[0] == 200
    assert kept.get("/ready") == (200, "ready")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_model_that_gives_no_vectors_is_never_a_200(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def hidden(*_: object) -> np.ndarray:
        return np.full((1, 16), value, np.float32)

    (engine,) = kept.watch._registry.engines().values()
    assert kept.embed("hello").status_code == 200
    heads = engine._encoder.heads
    monkeypatch.setitem(heads, "vector", heads["vector"]._replace(forward=hidden))
    assert kept.embed("a b c").status_code == 500
    status, said = kept.get("/ready")
    assert (status, "broken" in said) == (503, True)


def test_a_model_that_computes_something_else_than_before_is_broken(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kept.get("/ready")[0] == 200
    whole = Encoder.run

    def negative(self: Encoder, items: list[Item], head: str) -> list[bytes]:
        found = whole(self, items, head)
        return [(-np.frombuffer(result, np.float32)).tobytes() for result in found]

    monkeypatch.setattr(Encoder, "run", negative)
    kept.forget_that_it_was_well()
    status, said = kept.get("/ready")
    assert (status, "what it did before" in said) == (503, True)


def test_a_model_that_stays_broken_ends_the_server(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "run", fails(RuntimeError("broken")))
    kept.forget_that_it_was_well()
    assert kept.get("/ready")[0] == 503
    kept.look(59)
    assert kept.get("/health")[0] == 200
    kept.look(2)
    assert kept.get("/health")[0] == 503
    kept.look(6)
    assert kept.ended


@pytest.mark.parametrize("seconds", [20, 59, 63])
def test_a_broken_model_that_is_unloaded_does_not_end_the_server(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", fails(RuntimeError("broken")))
        kept.forget_that_it_was_well()
        assert kept.get("/ready")[0] == 503
        kept.look(seconds)
    (instance,) = kept.client.get("/v1/instances").json()["data"]
    kept.client.delete(f"/v1/instances/{instance['id']}")
    kept.look(100)
    assert not kept.ended
    assert kept.get("/health")[0] == 200
    assert kept.embed().status_code == 200
    assert kept.get("/ready") == (200, "ready")


def test_a_model_that_was_broken_and_is_loaded_anew_is_well(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "run", fails(RuntimeError("broken")))
        kept.forget_that_it_was_well()
        assert kept.get("/ready")[0] == 503
    (instance,) = kept.client.get("/v1/instances").json()["data"]
    kept.client.delete(f"/v1/instances/{instance['id']}")
    assert kept.embed().status_code == 200
    assert kept.get("/ready") == (200, "ready")
    assert kept.watch.well


def test_a_device_that_hangs_is_told_then_not_ready_then_not_healthy_then_ended(
    kept: Kept, hanging: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with asking(kept, hanging) as asked:
        kept.look(1)  # seen for the first time
        assert kept.watch.late is None
        assert kept.get("/health")[0] == 200
        kept.look(20)
        status, said = kept.get("/ready")
        assert (status, "20 s" in said) == (503, True)
        assert kept.get("/health")[0] == 200
        assert "in hang_in_here" in caplog.text  # where it hangs
        assert caplog.text.count("It is at") == 1
        kept.look(42)
        assert kept.get("/health")[0] == 503
        assert not kept.ended
        kept.look(6)
        assert kept.ended
        hanging.set()
        assert asked.result().status_code == 200


def test_a_device_that_was_only_slow_is_ready_again(kept: Kept, hanging: Event) -> None:
    with asking(kept, hanging) as asked:
        kept.look(1)
        kept.look(20)
        assert kept.get("/ready")[0] == 503
        hanging.set()
        assert asked.result().status_code == 200
    kept.look(1)
    assert kept.get("/ready") == (200, "ready")
    assert not kept.ended


def test_a_busy_device_is_ready(
    kept: Kept, hanging: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.watchdog.ANSWER_SECONDS", 0.01)
    kept.forget_that_it_was_well()
    with asking(kept, hanging) as asked:
        assert kept.get("/ready") == (200, "ready")
        hanging.set()
        asked.result()


def test_a_device_whose_threads_are_gone_is_not_ready(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.watchdog.ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(Device, "run", lambda *_: Never())
    kept.forget_that_it_was_well()
    assert kept.get("/ready") == (503, "The device does not answer.")


class Never:
    """What is awaited for ever."""

    def __await__(self):
        while True:
            yield


def test_work_that_is_to_take_long_is_given_long(kept: Kept) -> None:
    work = Work(0, expected=30.0)
    kept.watch._device._working[0] = work
    kept.look(1)
    kept.look(80)
    assert kept.watch.late is None
    kept.look(290)
    assert kept.watch.over is not None
    del kept.watch._device._working[0]


def test_an_event_loop_that_does_not_turn_is_told_with_its_stack(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    reached, goes_on = Event(), Event()

    def block_the_loop() -> None:
        reached.set()
        goes_on.wait()

    with ThreadPoolExecutor() as threads:
        blocked = threads.submit(kept.client.portal.call, block_the_loop)  # type: ignore[union-attr]
        reached.wait()
        kept.watch.look(20)
        kept.watch.look(50)
        assert kept.watch.over is not None
        assert "event loop" in kept.watch.over
        assert "in block_the_loop" in caplog.text
        goes_on.set()
        blocked.result()


def test_an_event_loop_that_is_late_again_is_told_again_whatever_else_is_late(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    kept.watch._device._working[0] = Work(0, 0.0)
    kept.look(20)
    for _ in range(2):
        kept.watch._loop_age = 20.0
        kept.watch.look(0.0)
        kept.look(2)
    assert caplog.text.count("The event loop has been at it") == 2
    assert caplog.text.count("The device has been at it") == 1
    del kept.watch._device._working[0]


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9])
def test_a_clock_that_jumps_or_a_machine_that_sleeps_is_nothing_that_hangs(
    kept: Kept, jump: float
) -> None:
    now = 0.0

    class Ticks:
        left = 50

        def wait(self, _: float) -> bool:
            nonlocal now
            now += jump if self.left == 25 else 1.0
            self.left -= 1
            return self.left == 0

    kept.watch._stop = Ticks()  # type: ignore[assignment]
    kept.watch._clock = lambda: now
    kept.watch._device._working[0] = Work(0, 0.0)
    kept.watch._watch()
    assert kept.watch.busy_seconds <= 50
    assert kept.watch.over is None
    del kept.watch._device._working[0]
    kept.watch._stop = Event()


def test_systemd_is_told_for_as_long_as_there_is_hope(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("embedsvc.serving.watchdog.notify", told.append)
    kept.watch._pings = True
    kept.look(1)
    assert told == ["WATCHDOG=1"]
    kept.watch.over = "it hangs"
    kept.look(1)
    assert told == ["WATCHDOG=1"]


HANGS = """
import sys, threading
from embedsvc import cli
from embedsvc.serving import watchdog
from embedsvc.web import server
from embedsvc.inference.encoder import Encoder
watchdog.TICK_SECONDS = watchdog.LAST_SECONDS = 0.1
def announced(*_):
    Encoder.run = lambda self, items, head: threading.Event().wait()
    watchdog.Watch.trouble_seen = True
server._announce = announced
watchdog.IDLE_SECONDS = 0.2
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_process_whose_device_hangs_ends_itself_with_a_code_of_its_own(cards_file: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", HANGS, "serve", "--port", "0", "--backend", "numpy"),
            *("--models", str(cards_file), "--hang-seconds", "1", "--log-format", "human"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == EXIT_HUNG, done.stderr
    assert "Encoder.run = lambda" in done.stderr or "in <lambda>" in done.stderr
    assert f"the process ends itself, with exit code {EXIT_HUNG}" in done.stderr
    logging.getLogger(__name__).debug(done.stderr)
