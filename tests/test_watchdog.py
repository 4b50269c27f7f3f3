"""What hangs is found out, logged with its stack, told by `/ready` and `/health`, and ended."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from embedsvc.exits import EXIT_HUNG
from embedsvc.inference.device import Device, Work
from embedsvc.inference.encoder import Encoder
from embedsvc.texts.item import Item
from tests.support.project import ROOT
from tests.support.watched_server import WatchedServer


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
def asking(watched: WatchedServer, hanging: Event) -> Iterator[Future[Any]]:
    """While a request hangs."""
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(watched.embed)
        try:
            while not watched.watch._device.working:
                pass
            yield asked
        finally:
            hanging.set()


def test_a_device_that_hangs_is_told_then_not_ready_then_not_healthy_then_ended(
    watched: WatchedServer, hanging: Event, caplog: pytest.LogCaptureFixture
) -> None:
    with asking(watched, hanging) as asked:
        watched.look(1)  # seen for the first time
        assert watched.watch.late is None
        assert watched.get("/health")[0] == 200
        watched.look(20)
        status, said = watched.get("/ready")
        assert (status, "20 s" in said) == (503, True)
        assert watched.get("/health")[0] == 200
        assert "in hang_in_here" in caplog.text  # where it hangs
        assert caplog.text.count("It is at") == 1
        watched.look(42)
        assert watched.get("/health")[0] == 503
        assert not watched.ended
        watched.look(6)
        assert watched.ended
        hanging.set()
        assert asked.result().status_code == 200


def test_a_device_that_was_only_slow_is_ready_again(watched: WatchedServer, hanging: Event) -> None:
    with asking(watched, hanging) as asked:
        watched.look(1)
        watched.look(20)
        assert watched.get("/ready")[0] == 503
        hanging.set()
        assert asked.result().status_code == 200
    watched.look(1)
    assert watched.get("/ready") == (200, "ready")
    assert not watched.ended


def test_a_busy_device_is_ready(
    watched: WatchedServer, hanging: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.watchdog.ANSWER_SECONDS", 0.01)
    watched.forget_that_it_was_well()
    with asking(watched, hanging) as asked:
        assert watched.get("/ready") == (200, "ready")
        hanging.set()
        asked.result()


def test_a_device_whose_threads_are_gone_is_not_ready(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.watchdog.ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(Device, "run", lambda *_: Never())
    watched.forget_that_it_was_well()
    assert watched.get("/ready") == (503, "The device does not answer.")


class Never:
    """What is awaited for ever."""

    def __await__(self):
        while True:
            yield


def test_work_that_is_to_take_long_is_given_long(watched: WatchedServer) -> None:
    work = Work(0, expected=30.0)
    watched.watch._device._working[0] = work
    watched.look(1)
    watched.look(80)
    assert watched.watch.late is None
    watched.look(290)
    assert watched.watch.over is not None
    del watched.watch._device._working[0]


def test_an_event_loop_that_does_not_turn_is_told_with_its_stack(
    watched: WatchedServer, caplog: pytest.LogCaptureFixture
) -> None:
    reached, goes_on = Event(), Event()

    def block_the_loop() -> None:
        reached.set()
        goes_on.wait()

    with ThreadPoolExecutor() as threads:
        blocked = threads.submit(watched.client.portal.call, block_the_loop)  # type: ignore[union-attr]
        reached.wait()
        watched.watch.look(20)
        watched.watch.look(50)
        assert watched.watch.over is not None
        assert "event loop" in watched.watch.over
        assert "in block_the_loop" in caplog.text
        goes_on.set()
        blocked.result()


def test_an_event_loop_that_is_late_again_is_told_again_whatever_else_is_late(
    watched: WatchedServer, caplog: pytest.LogCaptureFixture
) -> None:
    watched.watch._device._working[0] = Work(0, 0.0)
    watched.look(20)
    for _ in range(2):
        watched.watch._loop_age = 20.0
        watched.watch.look(0.0)
        watched.look(2)
    assert caplog.text.count("The event loop has been at it") == 2
    assert caplog.text.count("The device has been at it") == 1
    del watched.watch._device._working[0]


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9])
def test_a_clock_that_jumps_or_a_machine_that_sleeps_is_nothing_that_hangs(
    watched: WatchedServer, jump: float
) -> None:
    now = 0.0

    class Ticks:
        left = 50

        def wait(self, _: float) -> bool:
            nonlocal now
            now += jump if self.left == 25 else 1.0
            self.left -= 1
            return self.left == 0

    watched.watch._stop = Ticks()  # type: ignore[assignment]
    watched.watch._clock = lambda: now
    watched.watch._device._working[0] = Work(0, 0.0)
    watched.watch._watch()
    assert watched.watch.busy_seconds <= 50
    assert watched.watch.over is None
    del watched.watch._device._working[0]
    watched.watch._stop = Event()


def test_systemd_is_told_for_as_long_as_there_is_hope(
    watched: WatchedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("embedsvc.serving.watchdog.notify", told.append)
    watched.watch._pings = True
    watched.look(1)
    assert told == ["WATCHDOG=1"]
    watched.watch.over = "it hangs"
    watched.look(1)
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
