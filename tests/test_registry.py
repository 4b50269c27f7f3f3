"""The life of instances, in the registry: loaded once, kept, and unloaded."""

import asyncio
import gc
import weakref
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from embedsvc.errors import CheckpointError, Loading, Stopped, Unavailable
from embedsvc.serving import registry as registry_module
from embedsvc.web.admin.instances import until_settled
from tests.support.tiny_registry import become, open_registry, write_cards


def test_however_many_ask_a_model_is_loaded_once(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.loader.gate.clear()
            asked = [asyncio.create_task(registry.embed("a")) for _ in range(20)]
            await registry.loader.called.wait()
            (instance,) = registry.instances()
            assert instance.users == 20
            registry.loader.gate.set()
            vectors = await asyncio.gather(*asked)
            assert registry.loader.loads == ["a"]
            assert instance.state == "ready"
            assert not instance.users
            assert all(np.array_equal(vector, vectors[0]) for vector in vectors)

    asyncio.run(main())


def test_a_request_waits_only_so_long_and_the_model_goes_on_loading(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, load_wait_seconds=0.01) as registry:
            registry.loader.gate.clear()
            with pytest.raises(Loading, match="The model `a` is loading") as caught:
                await registry.embed("a")
            assert caught.value.status == 503
            assert int(caught.value.headers["Retry-After"]) >= 1
            registry.loader.gate.set()
            (instance,) = registry.instances()
            await instance.loaded()
            assert (await registry.embed("a")).shape == (1, 16)
            assert registry.loader.loads == ["a"]

    asyncio.run(main())


def test_a_model_that_fails_says_why_to_all_who_wait_and_is_tried_again(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.loader.broken.add("a")
            asked = await asyncio.gather(
                *(registry.embed("a") for _ in range(3)), return_exceptions=True
            )
            assert [str(each) for each in asked] == ["model `a` is broken"] * 3
            assert {type(each) for each in asked} == {Unavailable}
            assert registry.loader.loads == ["a"]
            (failed,) = registry.instances()
            assert (failed.state, str(failed.error)) == ("failed", "model `a` is broken")
            assert registry.memory.used == 0
            registry.loader.broken.clear()
            await registry.embed("a")
            assert registry.states() == {"a": "ready"}
            assert registry.instances() != [failed]

    asyncio.run(main())


def test_a_failure_does_not_keep_what_was_read(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            kept: list[weakref.finalize] = []

            async def fail(*_: object) -> None:
                weights = np.zeros(1)
                kept.append(weakref.finalize(weights, lambda: None))
                raise CheckpointError("broken in the middle")

            registry.loader.load = fail  # type: ignore[method-assign]
            with pytest.raises(Unavailable, match="broken in the middle"):
                await registry.embed("a")
            (failed,) = registry.instances()
            assert failed.error is not None
            gc.collect()
            assert not kept[0].alive

    asyncio.run(main())


@pytest.mark.parametrize("about", ["keep_alive = 0", "keep_alive = 0.01"])
def test_an_idle_model_is_unloaded_when_its_time_is_up(tmp_path: Path, about: str) -> None:
    write_cards(tmp_path, a=about)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            async with registry.use("a"):
                (instance,) = registry.instances()
                assert instance.state == "ready"
                await asyncio.sleep(0.02)
                assert instance.state == "ready"  # as long as it is used
            await become(instance, "unloaded")
            assert registry.instances() == []
            assert registry.memory.used == 0
            await registry.embed("a")
            assert registry.loader.loads == ["a", "a"]

    asyncio.run(main())


def test_spare_buffers_are_given_back_after_a_load_and_after_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path)
    monkeypatch.setattr(registry_module, "IDLE_SECONDS", 0.01)
    released = Event()

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.device.ops.release = released.set
            for work in (registry.load("a"), registry.embed("a")):
                released.clear()
                await work
                assert await asyncio.to_thread(released.wait, 10)

    asyncio.run(main())


def test_the_cards_keep_alive_goes_before_the_servers(tmp_path: Path) -> None:
    write_cards(tmp_path, a="keep_alive = -1", b="pin = true")

    async def main() -> None:
        async with open_registry(tmp_path, keep_alive=0) as registry:
            for name in "abc":
                await registry.embed(name)
            (last,) = [each for each in registry.instances() if each.card.id == "c"]
            await become(last, "unloaded")
            assert registry.states() == {"a": "ready", "b": "ready"}

    asyncio.run(main())


def test_who_loads_a_model_may_say_how_long_it_stays(tmp_path: Path) -> None:
    write_cards(tmp_path, a="keep_alive = -1")

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            instance = await registry.load("a", keep_alive=60.0, pin=True)
            assert (instance.keep_alive, instance.pinned) == (60.0, True)
            assert registry.start(registry.named("a"), keep_alive=0.01, pin=False) is instance
            await become(instance, "unloaded")

    asyncio.run(main())


def test_who_asks_while_a_model_is_unloaded_gets_it_anew(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            async with registry.use("a"):
                (first,) = registry.instances()
                unloading = registry.unload(first)
                await become(first, "unloading")
                assert (await registry.embed("a")).shape == (1, 16)
                assert not unloading.done()
            await unloading
            assert first.state == "unloaded"
            assert registry.states() == {"a": "ready"}
            assert registry.loader.loads == ["a", "a"]

    asyncio.run(main())


def test_a_download_ends_at_once_when_its_model_is_unloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path)

    def download(_card: object, told, stop: Event) -> None:
        told(5, 10)
        assert stop.wait(10)
        raise Stopped("it was stopped")

    monkeypatch.setattr("embedsvc.serving.loader.find_checkpoint", download)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            asked = asyncio.create_task(registry.embed("a"))
            instance = await registry.appearance(registry.named("a"))
            await become(instance, "downloading")
            assert instance.progress == (5, 10)
            await registry.unload(instance)
            assert instance.state == "unloaded"
            with pytest.raises(Unavailable, match="it was stopped"):
                await asked
            assert registry.instances() == []

    asyncio.run(main())


def test_progress_is_told_in_bytes_from_nothing_to_all(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.loader.gate.clear()
            instance = registry.start(registry.named("a"))
            told = []
            async for now in instance.changes():
                told.append((now.state, *now.progress))
                registry.loader.gate.set()
                if now.state == "ready":
                    break
            assert told[0] == ("loading", 0, 0)
            assert told[-1] == ("ready", size, size)
            done = [each[1] for each in told]
            assert done == sorted(done)

    asyncio.run(main())


def test_who_watches_slowly_still_sees_how_it_ends(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.loader.gate.clear()
            instance = registry.start(registry.named("a"))
            changes, events = instance.changes(), until_settled(instance)
            assert (await anext(changes)).state == "loading"
            assert b'"state":"loading"' in await anext(events)
            registry.loader.gate.set()
            await instance.loaded()
            assert [b'"state":"ready"' in event async for event in events] == [True]
            await registry.unload(instance)
            assert [each.state async for each in changes] == ["unloaded"]

    asyncio.run(main())


def test_closing_answers_what_runs_and_refuses_what_waits(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            registry.loader.gate.clear()
            asked = asyncio.create_task(registry.embed("a"))
            await registry.loader.called.wait()
            closing = asyncio.create_task(registry.close())
            await asyncio.sleep(0)
            registry.loader.gate.set()
            await closing
            with pytest.raises(Unavailable):
                await asked
            with pytest.raises(Unavailable, match="shutting down"):
                await registry.embed("b")
            assert registry.memory.used == 0

    asyncio.run(main())
