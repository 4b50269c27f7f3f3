"""Several models on one device: none keeps another waiting for long, loading does not either."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import TypeVar

import pytest

from embedsvc.catalog.cards import Dtype
from embedsvc.inference.device import Device
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.turns import Stepwise
from embedsvc.serving.instance import Instance
from embedsvc.serving.score_request import score_request
from embedsvc.texts.requests import ScoringRequest
from tests.support import tiny_registry
from tests.support.rerankers import write_models
from tests.support.tiny_registry import open_registry, write_cards

T = TypeVar("T")
TEXTS = [f"{a} {b} hello" for a in ascii_lowercase for b in ascii_lowercase[:16]]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_burst_on_one_model_lets_another_s_request_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    write_cards(tmp_path)
    ops = NumpyOps()
    ops.slots = workers
    monkeypatch.setattr(tiny_registry, "Device", lambda *_, **__: Device(lambda _: ops, workers))

    async def main() -> None:
        async with open_registry(tmp_path, max_batch_tokens=64) as registry:
            begun: list[str] = []
            busy = asyncio.Event()
            for name in "ab":
                note_batches(await registry.load(name), begun, busy)

            async def burst() -> int:
                async with registry.use("a") as engine:
                    return len((await engine.embed(TEXTS)).vectors)

            running = asyncio.create_task(burst())
            await busy.wait()
            before = len(begun)
            await registry.embed("b", "short")
            between = begun[before:].count("a")
            assert not running.done()
            # Those that were queued, and one for each that ended until the answer was seen.
            assert between <= 3 * workers
            assert await running == len(TEXTS)
            assert begun.count("a") > 30

    asyncio.run(main())


def note_batches(instance: Instance, begun: list[str], busy: asyncio.Event) -> None:
    """Have its batches listed as they begin; `busy` is set by the third."""
    assert instance.engine is not None
    batcher = instance.engine.batcher
    compute = batcher._run

    async def noted(items, head):
        begun.append(instance.card.id)
        if len(begun) == 3:
            busy.set()
        return await compute(items, head)

    batcher._run = noted


RANKED = [f"{a} {b} {c}" for a in ascii_lowercase for b in "abcdefgh" for c in "abcde"][:1000]


async def rank(registry: tiny_registry.TinyRegistry) -> int:
    """Rank a thousand documents, none of which is in the cache."""
    asked = ScoringRequest(model="ranker", query="hello", documents=RANKED)
    async with registry.use("ranker") as engine:
        scores = await score_request(engine, registry.named("ranker"), asked, read_cache=False)
        return len(scores.logits)


@pytest.fixture
def ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models, on a device with two slots."""
    write_models(tmp_path)
    ops = NumpyOps()
    ops.slots = 2
    monkeypatch.setattr(tiny_registry, "Device", lambda *_, **__: Device(lambda _: ops, 2))
    return tmp_path


def test_a_rerank_of_a_thousand_documents_lets_an_embedding_pass(ranking: Path) -> None:
    async def main() -> None:
        async with open_registry(ranking, max_batch_tokens=64) as registry:
            begun: list[str] = []
            busy = asyncio.Event()
            for name in ("ranker", "org/tiny"):
                note_batches(await registry.load(name), begun, busy)
            running = asyncio.create_task(rank(registry))
            await busy.wait()
            before = len(begun)
            await registry.embed("org/tiny", "short")
            assert begun[before:].count("ranker") <= 6  # what ran, and one for each that ended
            assert not running.done()
            assert await running == 1000
            assert begun.count("ranker") > 30

    asyncio.run(main())


def test_a_rerank_whose_client_hangs_up_is_no_burden_any_more(ranking: Path) -> None:
    async def main() -> None:
        async with open_registry(ranking, max_batch_tokens=64) as registry:
            instance = await registry.load("ranker")
            begun: list[str] = []
            busy = asyncio.Event()
            note_batches(instance, begun, busy)
            running = asyncio.create_task(rank(registry))
            await busy.wait()
            assert instance.engine is not None
            assert instance.engine.batcher.waiting_tokens > 0
            running.cancel()
            await asyncio.wait([running])
            assert instance.engine.batcher.waiting_tokens == 0

    asyncio.run(main())


class Counted(Device):
    """A device of one thread that counts, for each batch, the steps of loading it waited for."""

    def __init__(self) -> None:
        super().__init__(lambda _: NumpyOps(), workers=1, one_thread=True)
        self.steps = 0
        self.waited: list[int] = []
        self.loading = threading.Event()

    async def run(self, function: Callable[[], T], seconds: float = 0.0) -> T:
        submitted = self.steps

        def counted() -> T:
            self.waited.append(self.steps - submitted)
            return function()

        return await super().run(counted, seconds)

    async def load(self, dtype: Dtype | None, function: Callable[[Ops, Stepwise], T]) -> T:
        self.loading.set()
        return await super().load(dtype, function)

    def _take_turn(self, work: Callable[[], T]) -> T:
        def counted() -> T:
            self.steps += 1
            return work()

        return super()._take_turn(counted)


def test_a_batch_waits_for_one_step_of_loading_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cards(tmp_path)
    device = Counted()
    monkeypatch.setattr(tiny_registry, "Device", lambda *_, **__: device)

    async def main() -> None:
        async with open_registry(tmp_path, max_batch_tokens=64, cache_bytes=0) as registry:
            await registry.load("a")
            before, loads = device.steps, len(device.waited)
            loading = asyncio.create_task(registry.load("b"))
            while not loading.done():
                await registry.embed("a", "hello")
            await loading
            assert device.steps - before > 40  # each tensor, each pass
            assert len(device.waited) - loads > 5
            assert max(device.waited) <= 1

    asyncio.run(main())
