"""A fake model, whose computations end when a test says so, and caches over it."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.errors import EmbeddingFailed
from embedsvc.serving.cache import Cache
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.texts.item import Item, TokenIds
from tests.support.clock import Clock
from tests.support.fake_device import embed, result, turns

DIMENSIONS = 2
"""How many components its vectors have."""


def text(value: int, length: int = 3) -> TokenIds:
    return np.full(length, value, dtype=np.int32)


class Failure(EmbeddingFailed):
    """The failure of a computation, which knows its texts."""

    def __init__(self, texts: list[int]) -> None:
        super().__init__(f"failed on {texts}")
        self.texts = texts


class Model:
    """Computes when told to: a text's vector is its first token and its length."""

    def __init__(self) -> None:
        self.computed: list[list[int]] = []
        """The texts of every computation begun, by their first tokens."""
        self.running: list[tuple[list[int], asyncio.Future[None]]] = []
        self.called_off = 0
        self.at_once = False

    async def compute(self, items: list[Item], head: str) -> list[bytes]:
        values = [int(item.ids[0]) for item in items]
        self.computed.append(values)
        if not self.at_once:
            computation = (values, asyncio.get_running_loop().create_future())
            self.running.append(computation)
            try:
                await computation[1]
            except asyncio.CancelledError:
                self.called_off += 1
                raise
            finally:
                self.running.remove(computation)
        return [result(item) for item in items]

    def finish(self, index: int = 0) -> None:
        _, gate = self.running[index]
        if not gate.done():
            gate.set_result(None)

    def fail(self, index: int = 0) -> None:
        values, gate = self.running[index]
        if not gate.done():
            gate.set_exception(Failure(values))


def cache(model: Model, *, max_bytes: int = 2**20, disk: DiskCache | None = None) -> Cache:
    return Cache(model.compute, max_bytes=max_bytes, disk=disk)


def disk(folder: Path, clock: Clock | None = None) -> DiskCache:
    return DiskCache(folder, "abc", max_bytes=2**30, clock=clock or Clock())


def ask(
    asked: Cache, *values: int, read: bool = True, write: bool = True
) -> asyncio.Task[NDArray[np.float32]]:
    return asyncio.create_task(embed(asked, [text(i) for i in values], read=read, write=write))


def vectors(*values: int) -> list[list[float]]:
    return [[i, 3] for i in values]


def run(scenario: Callable[[Model], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario, which must leave no task behind and no complaint with the event loop."""

    async def main() -> None:
        complaints: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(10):
            await scenario(Model())
            await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert complaints == []

    asyncio.run(main())
