"""The life of instances, in the registry: loaded once, kept, unloaded, within the memory."""

import asyncio
import gc
import weakref
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from embedsvc.errors import CheckpointError, DoesNotFit, Loading, Stopped, Unavailable
from embedsvc.inference.device import Device
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.web.admin.instances import until_settled
from tests.support import keeper as keeper_module
from tests.support.keeper import become, keeping, write_cards


def test_however_many_ask_a_model_is_loaded_once(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            keeper.loader.gate.clear()
            asked = [asyncio.create_task(keeper.embed("a")) for _ in range(20)]
            await keeper.loader.called.wait()
            (instance,) = keeper.instances()
            assert instance.users == 20
            keeper.loader.gate.set()
            vectors = await asyncio.gather(*asked)
            assert keeper.loader.loads == ["a"]
            assert instance.state == "ready"
            assert not instance.users
            assert all(np.array_equal(vector, vectors[0]) for vector in vectors)

    asyncio.run(main())


def test_a_request_waits_only_so_long_and_the_model_goes_on_loading(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path, load_wait_seconds=0.01) as keeper:
            keeper.loader.gate.clear()
            with pytest.raises(Loading, match="The model `a` is loading") as caught:
                await keeper.embed("a")
            assert caught.value.status == 503
            assert int(caught.value.headers["Retry-After"]) >= 1
            keeper.loader.gate.set()
            (instance,) = keeper.instances()
            await instance.loaded()
            assert (await keeper.embed("a")).shape == (1, 16)
            assert keeper.loader.loads == ["a"]

    asyncio.run(main())


def test_a_model_that_fails_says_why_to_all_who_wait_and_is_tried_again(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            keeper.loader.broken.add("a")
            asked = await asyncio.gather(
                *(keeper.embed("a") for _ in range(3)), return_exceptions=True
            )
            assert [str(each) for each in asked] == ["model `a` is broken"] * 3
            assert {type(each) for each in asked} == {Unavailable}
            assert keeper.loader.loads == ["a"]
            (failed,) = keeper.instances()
            assert (failed.state, str(failed.error)) == ("failed", "model `a` is broken")
            assert keeper.memory.used == 0
            keeper.loader.broken.clear()
            await keeper.embed("a")
            assert keeper.states() == {"a": "ready"}
            assert keeper.instances() != [failed]

    asyncio.run(main())


def test_a_failure_does_not_keep_what_was_read(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            kept: list[weakref.finalize] = []

            async def fail(*_: object) -> None:
                weights = np.zeros(1)
                kept.append(weakref.finalize(weights, lambda: None))
                raise CheckpointError("broken in the middle")

            keeper.loader.load = fail  # type: ignore[method-assign]
            with pytest.raises(Unavailable, match="broken in the middle"):
                await keeper.embed("a")
            (failed,) = keeper.instances()
            assert failed.error is not None
            gc.collect()
            assert not kept[0].alive

    asyncio.run(main())


@pytest.mark.parametrize("about", ["keep_alive = 0", "keep_alive = 0.01"])
def test_an_idle_model_is_unloaded_when_its_time_is_up(tmp_path: Path, about: str) -> None:
    write_cards(tmp_path, a=about)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            async with keeper.use("a"):
                (instance,) = keeper.instances()
                assert instance.state == "ready"
                await asyncio.sleep(0.02)
                assert instance.state == "ready"  # as long as it is used
            await become(instance, "unloaded")
            assert keeper.instances() == []
            assert keeper.memory.used == 0
            await keeper.embed("a")
            assert keeper.loader.loads == ["a", "a"]

    asyncio.run(main())


def test_the_cards_keep_alive_goes_before_the_servers(tmp_path: Path) -> None:
    write_cards(tmp_path, a="keep_alive = -1", b="pin = true")

    async def main() -> None:
        async with keeping(tmp_path, keep_alive=0) as keeper:
            for name in "abc":
                await keeper.embed(name)
            (last,) = [each for each in keeper.instances() if each.card.id == "c"]
            await become(last, "unloaded")
            assert keeper.states() == {"a": "ready", "b": "ready"}

    asyncio.run(main())


def test_who_loads_a_model_may_say_how_long_it_stays(tmp_path: Path) -> None:
    write_cards(tmp_path, a="keep_alive = -1")

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            instance = await keeper.load("a", keep_alive=60.0, pin=True)
            assert (instance.keep_alive, instance.pinned) == (60.0, True)
            assert keeper.start(keeper.named("a"), keep_alive=0.01, pin=False) is instance
            await become(instance, "unloaded")

    asyncio.run(main())


def test_the_least_recently_used_idle_model_makes_room(tmp_path: Path) -> None:
    size = write_cards(tmp_path, "abcd", a="pin = true")

    async def main() -> None:
        async with keeping(tmp_path, max_memory=3 * size) as keeper:
            for name in "abcb":
                await keeper.embed(name)
            assert keeper.memory.used == 3 * size
            await keeper.embed("d")
            assert keeper.states() == {"a": "ready", "b": "ready", "d": "ready"}
            await keeper.embed("c")
            assert keeper.states() == {"a": "ready", "d": "ready", "c": "ready"}
            assert keeper.memory.used == 3 * size

    asyncio.run(main())


def test_a_model_that_cannot_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    size = write_cards(tmp_path, a="pin = true")

    async def main() -> None:
        async with keeping(tmp_path, max_memory=size - 1) as keeper:
            said = (
                rf"`a` needs {size / 1000:.3g} kB, and models may take {(size - 1) / 1000:.3g} kB"
            )
            with pytest.raises(Unavailable, match=said):
                await keeper.embed("a")
            (instance,) = keeper.instances()
            assert instance.state == "failed"
            assert isinstance(instance.error, DoesNotFit)
        async with keeping(tmp_path, max_memory=2 * size - 1) as keeper:
            await keeper.embed("a")
            with pytest.raises(Unavailable, match="kB are pinned"):
                await keeper.embed("b")
            assert (await keeper.embed("a")).shape == (1, 16)

    asyncio.run(main())


def test_a_busy_model_answers_those_it_has_before_its_memory_is_another_s(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path, max_memory=size) as keeper:
            async with keeper.use("a") as engine:
                (busy,) = keeper.instances()
                waiting = asyncio.create_task(keeper.embed("b"))
                await become(busy, "unloading")
                assert keeper.memory.used == size
                assert keeper.loader.loads == ["a"]
                assert (await engine.embed(["still here"])).vectors.shape == (1, 16)
                assert not waiting.done()
            assert (await waiting).shape == (1, 16)
            assert keeper.states() == {"b": "ready"}
            assert keeper.memory.used == size

    asyncio.run(main())


def test_an_idle_model_makes_room_before_a_busy_one(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path, max_memory=2 * size) as keeper, keeper.use("a"):
            await keeper.embed("b")  # used later, but idle
            await keeper.embed("c")
            assert keeper.states() == {"a": "ready", "c": "ready"}

    asyncio.run(main())


def test_who_asks_while_a_model_is_unloaded_gets_it_anew(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            async with keeper.use("a"):
                (first,) = keeper.instances()
                unloading = keeper.unload(first)
                await become(first, "unloading")
                assert (await keeper.embed("a")).shape == (1, 16)
                assert not unloading.done()
            await unloading
            assert first.state == "unloaded"
            assert keeper.states() == {"a": "ready"}
            assert keeper.loader.loads == ["a", "a"]

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
        async with keeping(tmp_path) as keeper:
            asked = asyncio.create_task(keeper.embed("a"))
            instance = await keeper.appearance(keeper.named("a"))
            await become(instance, "downloading")
            assert instance.progress == (5, 10)
            await keeper.unload(instance)
            assert instance.state == "unloaded"
            with pytest.raises(Unavailable, match="it was stopped"):
                await asked
            assert keeper.instances() == []

    asyncio.run(main())


def test_progress_is_told_in_bytes_from_nothing_to_all(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            keeper.loader.gate.clear()
            instance = keeper.start(keeper.named("a"))
            told = []
            async for now in instance.changes():
                told.append((now.state, *now.progress))
                keeper.loader.gate.set()
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
        async with keeping(tmp_path) as keeper:
            keeper.loader.gate.clear()
            instance = keeper.start(keeper.named("a"))
            changes, events = instance.changes(), until_settled(instance)
            assert (await anext(changes)).state == "loading"
            assert b'"state":"loading"' in await anext(events)
            keeper.loader.gate.set()
            await instance.loaded()
            assert [b'"state":"ready"' in event async for event in events] == [True]
            await keeper.unload(instance)
            assert [each.state async for each in changes] == ["unloaded"]

    asyncio.run(main())


def test_closing_answers_what_runs_and_refuses_what_waits(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            keeper.loader.gate.clear()
            asked = asyncio.create_task(keeper.embed("a"))
            await keeper.loader.called.wait()
            closing = asyncio.create_task(keeper.close())
            await asyncio.sleep(0)
            keeper.loader.gate.set()
            await closing
            with pytest.raises(Unavailable):
                await asked
            with pytest.raises(Unavailable, match="shutting down"):
                await keeper.embed("b")
            assert keeper.memory.used == 0

    asyncio.run(main())


def test_on_mlx_a_model_gives_its_memory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlx.core as mx

    size = write_cards(tmp_path)
    device = Device(MlxOps, workers=1, one_thread=True)
    monkeypatch.setattr(keeper_module, "Device", lambda *_, **__: device)

    async def main() -> None:
        async with keeping(tmp_path) as keeper:
            await keeper.unload(await keeper.load("a"))  # what the first one leaves stays
            before = mx.get_active_memory()
            instance = await keeper.load("a")
            await keeper.embed("a")
            assert mx.get_active_memory() >= before + size * 0.8
            await keeper.unload(instance)
            assert mx.get_active_memory() <= before
            assert mx.get_cache_memory() == 0

    asyncio.run(main())
