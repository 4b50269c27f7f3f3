"""A fake device that works only when its gate is open, and what asks it."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.heads import HEADS
from embedsvc.inference.pass_cost import Cost
from embedsvc.serving.batcher import Batcher
from embedsvc.serving.cache import Cache
from embedsvc.texts.item import Item, TokenIds

BAD = 666
COST = Cost(start=0.005, token=0.0001, pair=1e-7)
FREE = Cost(start=1e9, token=1e-12, pair=1e-12)
"""A pass costs all, a text nothing, so that only the budget of tokens bounds a batch."""


def exact(texts: int, longest: int) -> tuple[int, int]:
    """A pass is padded to its longest text, and no further."""
    return texts, longest


def rounded(texts: int, longest: int) -> tuple[int, int]:
    """A pass is padded to a power of two of texts, and to a multiple of 16 tokens."""
    return 1 << (texts - 1).bit_length(), -(-longest // 16) * 16


def text(length: int, value: int = 1) -> TokenIds:
    return np.full(length, value, dtype=np.int32)


def result(item: Item) -> bytes:
    """The vector of an item: its first token, and its length."""
    return np.array([item.ids[0], len(item)], dtype="<f4").tobytes()


class Device:
    """A device that runs batches once its gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[TokenIds]] = []
        self.heads: list[str] = []
        self.gate = asyncio.Event()

    async def run(self, items: list[Item], head: str) -> list[bytes]:
        self.batches.append([item.ids for item in items])
        self.heads.append(head)
        await self.gate.wait()
        if any(item.ids[0] == BAD for item in items):
            raise RuntimeError("bad token")
        return [result(item) for item in items]

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


def batcher(device: Device, **limits: int) -> Batcher:
    merged = {"slots": 1, "max_batch_tokens": 64, "max_waiting_tokens": 1000} | limits
    return Batcher(device.run, cost=COST, grid=exact, **merged)


async def embed(
    asked: Batcher | Cache, texts: Sequence[TokenIds], head: str = "vector", **how: bool
) -> NDArray[np.float32]:
    """The vectors of texts, (n, 2)."""
    items = [Item(ids) for ids in texts]
    found = asked.get(items, head, **how) if isinstance(asked, Cache) else asked.submit(items, head)
    return HEADS["vector"].unpack(await found, items)


async def turns(count: int = 5) -> None:
    """Let other tasks on the event loop run."""
    for _ in range(count):
        await asyncio.sleep(0)
