"""The memory that models may take: who makes room for whom, and what does not fit."""

import asyncio
import gc
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.errors import DoesNotFit, Unavailable
from embedsvc.inference.device import Device
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.mlx.compiling import leave_thread
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.plan import make_plan
from embedsvc.serving.model_memory import weight_limit
from tests.support import tiny_registry
from tests.support.tiny_registry import become, open_registry, write_cards


def test_the_least_recently_used_idle_model_makes_room(tmp_path: Path) -> None:
    size = write_cards(tmp_path, "abcd", a="pin = true")

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=3 * size) as registry:
            for name in "abcb":
                await registry.embed(name)
            assert registry.memory.used == 3 * size
            await registry.embed("d")
            assert registry.states() == {"a": "ready", "b": "ready", "d": "ready"}
            await registry.embed("c")
            assert registry.states() == {"a": "ready", "d": "ready", "c": "ready"}
            assert registry.memory.used == 3 * size

    asyncio.run(main())


def test_memory_is_given_back_though_a_cache_on_disk_cannot_be_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=size) as registry:
            async with registry.use("a") as engine:
                engine.cache.close = AsyncMock(side_effect=OSError("disk full"))
            async with asyncio.timeout(10):
                await registry.embed("b")
            assert registry.states() == {"b": "ready"}
            assert registry.memory.used == size
            assert not hasattr(engine._encoder, "heads")

    asyncio.run(main())
    assert "did not unload as it should" in caplog.text


def test_a_model_that_cannot_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    size = write_cards(tmp_path, a="pin = true")

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=size - 1) as registry:
            said = (
                rf"`a` needs {size / 1000:.3g} kB, and models may take {(size - 1) / 1000:.3g} kB"
            )
            with pytest.raises(Unavailable, match=said):
                await registry.embed("a")
            (instance,) = registry.instances()
            assert instance.state == "failed"
            assert isinstance(instance.error, DoesNotFit)
        async with open_registry(tmp_path, max_memory=2 * size - 1) as registry:
            await registry.embed("a")
            with pytest.raises(Unavailable, match="kB are pinned"):
                await registry.embed("b")
            assert (await registry.embed("a")).shape == (1, 16)

    asyncio.run(main())


def test_a_busy_model_answers_those_it_has_before_its_memory_is_another_s(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=size) as registry:
            async with registry.use("a") as engine:
                (busy,) = registry.instances()
                waiting = asyncio.create_task(registry.embed("b"))
                await become(busy, "unloading")
                assert registry.memory.used == size
                assert registry.loader.loads == ["a"]
                assert (await engine.embed(["still here"])).vectors.shape == (1, 16)
                assert not waiting.done()
            assert (await waiting).shape == (1, 16)
            assert registry.states() == {"b": "ready"}
            assert registry.memory.used == size

    asyncio.run(main())


def test_an_idle_model_makes_room_before_a_busy_one(tmp_path: Path) -> None:
    size = write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=2 * size) as registry, registry.use("a"):
            await registry.embed("b")  # used later, but idle
            await registry.embed("c")
            assert registry.states() == {"a": "ready", "c": "ready"}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("memory", "asked", "limit"),
    [
        (5_700, None, 3_990),  # a Mac of 8 GB, in MB
        (11_400, None, 7_980),  # of 16
        (22_900, None, 16_030),  # of 32
        (5_700, 1_000, 1_000),
        (5_700, 4_275, 4_275),
        (5_700, 8_000, 4_275),
    ],
)
def test_weights_may_take_what_passes_leave_at_most(
    memory: int, asked: int | None, limit: int
) -> None:
    ops = NumpyOps()
    ops.memory, ops.pass_memory = memory, memory // 4
    assert weight_limit(ops, asked) == pytest.approx(limit, abs=1)


def test_passes_keep_their_share_of_the_device_whatever_the_operator_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = write_cards(tmp_path)

    class Small(NumpyOps):
        """A device that has room for a model and a half, beside what its passes need."""

        def __init__(self) -> None:
            super().__init__()
            self.memory, self.pass_memory = 2 * size, size // 2

    monkeypatch.setattr(tiny_registry, "NumpyOps", Small)

    async def main() -> None:
        async with open_registry(tmp_path, max_memory=10 * size) as registry:
            assert registry.memory.limit == 2 * size - size // 2
            await registry.embed("a")
            await registry.embed("b")
            assert registry.states() == {"b": "ready"}

    asyncio.run(main())
    assert "max_memory is " in caplog.text


@pytest.mark.parametrize(("share", "tokens"), [(0, 1), (100, 100), (1 << 20, 4096)])
def test_a_batch_has_no_more_tokens_than_its_pass_has_memory_for(
    tiny: Checkpoint, share: int, tokens: int
) -> None:
    plan = make_plan(tiny, "float32", backend="numpy")
    assert plan.token_size == 32 * 4 * 32  # its widest layer is 32 wide
    ops = NumpyOps()
    ops.pass_memory = share * plan.token_size
    assert load_encoder(ops, tiny, plan=plan).max_batch_tokens == tokens


@pytest.mark.parametrize("compiled", [False, True])
def test_on_mlx_a_model_gives_its_memory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    import mlx.core as mx

    size = write_cards(tmp_path)

    def make_ops(dtype: Dtype | None) -> MlxOps:
        ops = MlxOps(dtype)
        ops.compile, ops.often = compiled, 1
        return ops

    device = Device(make_ops, workers=1, one_thread=True, leave=leave_thread)
    monkeypatch.setattr(tiny_registry, "Device", lambda *_, **__: device)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            await registry.unload(await registry.load("a"))  # what the first one leaves stays
            gc.collect()  # some bytes of constants go with objects that refer to each other
            before = mx.get_active_memory()
            instance = await registry.load("a")
            await registry.embed("a")
            assert mx.get_active_memory() >= before + size * 0.8
            await registry.unload(instance)
            assert mx.get_cache_memory() == 0
            gc.collect()
            assert mx.get_active_memory() <= before

    asyncio.run(main())
