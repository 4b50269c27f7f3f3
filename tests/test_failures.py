"""Models that do not load, and those that are pinned: neither costs the others anything."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from embedsvc.catalog.cards import Card
from embedsvc.cli import main as command
from embedsvc.commands import ps
from embedsvc.commands.client import Instances, RunningServer
from embedsvc.errors import CheckpointError, Unavailable
from embedsvc.serving.failures import Failures
from embedsvc.serving.reload import reload
from tests.support.clock import Clock
from tests.support.tiny_registry import TinyRegistry, become, open_registry, write_cards


def timed(registry: TinyRegistry) -> Clock:
    """A clock of the test's for how long what failed is left alone."""
    registry._failures = Failures(clock := Clock())
    return clock


async def refused(registry: TinyRegistry, name: str) -> int:
    """Seconds after which to come back, as a request is told."""
    with pytest.raises(Unavailable, match=f"`{name}` is broken") as caught:
        await registry.embed(name)
    return int(caught.value.headers["Retry-After"])


def test_what_keeps_failing_is_tried_less_and_less(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            clock = timed(registry)
            registry.loader.broken.add("a")
            assert [await refused(registry, "a") for _ in range(100)] == [1] * 100
            assert len(registry.loader.loads) == 2  # the first time might have been by chance
            told = []
            for _ in range(9):
                clock.now += registry._failures.wait("a")
                told.append(await refused(registry, "a"))
                await refused(registry, "a")
            assert told == [2, 4, 8, 16, 32, 59, 59, 59, 59]
            assert len(registry.loader.loads) == 11
            assert registry._failures.wait("a") == 60
            assert (await registry.embed("b")).shape == (1, 16)

    asyncio.run(main())


@pytest.mark.parametrize("way", ["load", "reload", "wait", "change"])
def test_it_is_tried_at_once_when_somebody_says_so(tmp_path: Path, way: str) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            clock = timed(registry)
            registry.loader.broken.add("a")
            for _ in range(9):
                await refused(registry, "a")
                clock.now += registry._failures.wait("a")
            await refused(registry, "a")
            tried = len(registry.loader.loads)
            registry.loader.broken.clear()
            await refused(registry, "a")
            assert len(registry.loader.loads) == tried
            if way == "load":
                await registry.load("a")
            elif way == "wait":
                clock.now += 60
            else:
                write_cards(tmp_path, a="max_tokens = 9" if way == "change" else "")
                reload(registry)
            assert (await registry.embed("a")).shape == (1, 16)
            assert registry._failures._failures == {}

    asyncio.run(main())


def test_a_model_that_cannot_load_does_not_make_others_go_at_every_request(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=size) as registry:
            timed(registry)
            registry.loader.broken.add("b")
            for _ in range(50):
                await registry.embed("a")
                await refused(registry, "b")
            assert registry.loader.loads.count("a") <= 3

    asyncio.run(main())


def test_a_load_that_nobody_wants_any_more_makes_no_room(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=size) as registry:
            await registry.load("a")
            read, goes_on = asyncio.Event(), asyncio.Event()
            fetch = registry.loader.fetch

            async def slow(card: Card, *rest):
                found = await fetch(card, *rest)
                read.set()
                await goes_on.wait()
                return found

            registry.loader.fetch = slow  # type: ignore[method-assign]
            unwanted = registry.start(registry.named("b"))
            await read.wait()
            gone = registry.unload(unwanted)
            goes_on.set()
            await gone
            assert unwanted.state == "unloaded"
            assert registry.states() == {"a": "ready"}
            assert registry.loader.loads == ["a"]

    asyncio.run(main())


def test_an_error_that_many_are_told_stays_as_large_as_it_is(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.loader.broken.add("a")
            instance = registry.start(registry.named("a"))
            depths = set()
            for _ in range(20):
                with pytest.raises(CheckpointError) as caught:
                    await instance.loaded()
                depths.add(len(caught.traceback))
            assert len(depths) <= 2  # whoever waits for it to load has a frame more

    asyncio.run(main())


def test_a_reason_that_a_file_made_long_is_cut(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:

            async def fail(*_: object) -> None:
                raise CheckpointError("model `a`: no such kind: " + "x" * 1_000_000)

            registry.loader.load = fail  # type: ignore[method-assign]
            instance = registry.start(registry.named("a"))
            with pytest.raises(CheckpointError, match=r"no such kind: x+…$") as caught:
                await instance.loaded()
            assert len(str(caught.value)) < 3000

    asyncio.run(main())


# --- pinned ------------------------------------------------------------------------------------


def test_what_is_pinned_stays_though_its_time_was_running(tmp_path: Path) -> None:
    write_cards(tmp_path, a="keep_alive = 0.01")

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            await registry.embed("a")
            (instance,) = registry.instances()
            registry.start(instance.card, pin=True)
            await asyncio.sleep(0.03)
            assert instance.state == "ready"
            registry.start(instance.card, pin=False)
            await become(instance, "unloaded")

    asyncio.run(main())


def test_a_reload_that_pins_or_unpins_is_no_other(tmp_path: Path) -> None:
    write_cards(tmp_path, a="keep_alive = 0.01\npin = true")

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            await registry.embed("a")
            (instance,) = registry.instances()
            write_cards(tmp_path, a="keep_alive = 0.01")
            reload(registry)
            await become(instance, "unloaded")

    asyncio.run(main())


def test_ps_says_what_is_pinned_and_what_failed_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def instance(model: str, **about: object) -> dict[str, object]:
        return {
            "id": "1",
            "model": model,
            "state": "ready",
            "error": None,
            "users": 0,
            "progress": {"done": 0, "total": 0},
            "memory_bytes": 1000,
            "pinned": False,
            "keep_alive": -1.0,
            **about,
        }

    told = [
        instance("plain"),
        instance("kept", pinned=True),
        instance("bad", state="failed", error="no \x1b[2J\nfiles"),
        instance("worse", state="failed", error="broken", pinned=True),
    ]
    answer = {"data": told, "memory_bytes": 0, "max_memory_bytes": 0}
    found = msgspec.convert(answer, Instances)
    monkeypatch.setattr(RunningServer, "ask", lambda *_, **__: found)
    assert ps.EXAMPLES
    assert command(["ps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()[5:-1]) for line in lines[1:5]] == [
        "for ever",
        "pinned",
        "not loaded",
        "pinned, not loaded",
    ]
    assert lines[5:] == ["bad failed: no \\x1b[2J\\nfiles", "worse failed: broken"]
