"""Several models on one device: none keeps another waiting for long, loading does not either."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import TypeVar

import pytest

from embedsvc.inference.device import Device
from embedsvc.inference.ops.numpy import NumpyOps
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
            batches = Batches()
            batches.hold(await registry.load("a"))
            batches.note(await registry.load("b"))

            async def burst() -> int:
                async with registry.use("a") as engine:
                    return len((await engine.embed(TEXTS)).vectors)

            running = asyncio.create_task(burst())
            await batches.busy.wait()
            await registry.embed("b", "short")
            assert await running == len(TEXTS)
            assert batches.ahead("b") <= 2 * workers  # what was handed over already
            assert batches.begun.count("a") > 30

    asyncio.run(main())


class Batches:
    """Notes the batches of models as the device begins them.

    From the third on, those of a burst wait until a lone request is handed over, or `go_on`.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.busy = asyncio.Event()
        """Set by the third."""
        self.go_on = threading.Event()
        self._asked = 0

    def hold(self, burst: Instance) -> None:
        loop = asyncio.get_running_loop()

        def begin() -> None:
            if len(self.begun) >= 3:
                loop.call_soon_threadsafe(self.busy.set)
                assert self.go_on.wait(20)

        self._watch(burst, begin)

    def note(self, lone: Instance) -> None:
        assert lone.engine is not None
        batcher = lone.engine.batcher
        hand_over = batcher._run

        def noted(items, head):
            self._asked = len(self.begun)
            self.go_on.set()
            return hand_over(items, head)

        batcher._run = noted
        self._watch(lone, lambda: None)

    def ahead(self, lone: str) -> int:
        """How many of the burst began after the lone request was handed over, before its batch."""
        return self.begun[self._asked :].index(lone)

    def _watch(self, instance: Instance, begin: Callable[[], None]) -> None:
        assert instance.engine is not None
        encoder = instance.engine._encoder
        run = encoder.run

        def noted(items, head):
            self.begun.append(instance.card.id)
            begin()
            return run(items, head)

        encoder.run = noted


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
            batches = Batches()
            batches.hold(await registry.load("ranker"))
            batches.note(await registry.load("org/tiny"))
            running = asyncio.create_task(rank(registry))
            await batches.busy.wait()
            await registry.embed("org/tiny", "short")
            assert await running == 1000
            assert batches.ahead("org/tiny") <= 4  # what was handed over already
            assert batches.begun.count("ranker") > 30

    asyncio.run(main())


def test_a_rerank_whose_client_hangs_up_is_no_burden_any_more(ranking: Path) -> None:
    async def main() -> None:
        async with open_registry(ranking, max_batch_tokens=64) as registry:
            instance = await registry.load("ranker")
            batches = Batches()
            batches.hold(instance)
            running = asyncio.create_task(rank(registry))
            await batches.busy.wait()
            assert instance.engine is not None
            assert instance.engine.batcher.waiting_tokens > 0
            running.cancel()
            await asyncio.wait([running])
            assert instance.engine.batcher.waiting_tokens == 0
            batches.go_on.set()

    asyncio.run(main())


class Counted(Device):
    """A device of one thread that counts, for each batch, the steps of loading ahead of it.

    While `held`, a step does not end before a batch is behind it.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.ahead: list[int] = []
        self.held = False
        self._changed = threading.Condition()
        self._steps, self._batches = 0, 0
        """How many are queued or run."""
        super().__init__(lambda _: NumpyOps(), workers=1, one_thread=True)

    def run(self, function: Callable[[], T], seconds: float = 0.0) -> asyncio.Future[T]:
        def counted() -> T:
            try:
                return function()
            finally:
                with self._changed:
                    self._batches -= 1

        with self._changed:
            self.ahead.append(self._steps)
            self._batches += 1
            self._changed.notify_all()
            return super().run(counted, seconds)

    def _take_turn(self, work: Callable[[], T]) -> T:
        def counted() -> T:
            with self._changed:
                self.steps += 1
                assert not self.held or self._changed.wait_for(lambda: self._batches > 0, 20)
            try:
                return work()
            finally:
                with self._changed:
                    self._steps -= 1

        with self._changed:
            self._steps += 1
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
            before, device.held = device.steps, True
            loading = asyncio.create_task(registry.load("b"))
            while not loading.done():
                await registry.embed("a", "hello")
            await loading
            assert device.steps - before > 40  # each tensor, each pass
            assert device.ahead.count(1) > 40
            assert max(device.ahead) == 1

    asyncio.run(main())
