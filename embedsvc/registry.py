"""The models that are loaded: an engine for each card in use."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from embedsvc.batcher import Batcher
from embedsvc.cache import Cache
from embedsvc.cards import Card, Cards
from embedsvc.checkpoint import Checkpoint, open_checkpoint
from embedsvc.device import Device
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import CardsError, ModelNotFound, SetupError, Unavailable
from embedsvc.ops.base import TokenIds
from embedsvc.settings import Settings
from embedsvc.store import Store
from embedsvc.tokenizer import Tokenizer

TEXTS = 64
"""Texts tokenised at a time."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one request."""

    vectors: NDArray[np.float32]  # (n, D)
    tokens: int
    """Of all texts, special tokens included."""


class Engine:
    """A loaded model: its tokeniser, its encoder, the line in front of it, and its cache."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        encoder: Encoder,
        device: Device,
        threads: ThreadPoolExecutor,
        settings: Settings,
        store: Store | None,
    ) -> None:
        self.checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._threads = threads

        async def encode(texts: list[TokenIds]) -> NDArray[np.float32]:
            if device.ops.pipelined:
                begun = await device.run(lambda: encoder.begin(texts))
                return await device.wait(lambda: encoder.finish(begun))
            return await device.run(lambda: encoder.encode(texts))

        self._batcher = Batcher(
            encode,
            cost=encoder.cost,
            grid=device.ops.grid,
            slots=device.ops.slots,
            max_batch_tokens=settings.max_batch_tokens or device.ops.max_batch_tokens,
            max_waiting_tokens=settings.max_waiting_tokens,
        )
        self._cache = Cache(self._batcher.embed, max_bytes=settings.cache_bytes, store=store)

    async def embed(
        self, texts: Sequence[str], *, read_cache: bool = True, write_cache: bool = True
    ) -> Embedded:
        """Vectors of the texts. Raises `RequestError`."""
        ids = await self._tokenize(texts)
        vectors = await self._cache.embed(ids, read=read_cache, write=write_cache)
        return Embedded(vectors, sum(map(len, ids)))

    def counts(self) -> Iterator[tuple[str, str, float]]:
        """Name, meaning and value of everything counted."""
        line = self._batcher
        computed = line.tokens + line.padding
        yield "batches_total", "Forward passes.", line.batches
        yield "texts_total", "Texts computed.", line.texts
        yield "tokens_total", "Tokens of the texts computed.", line.tokens
        yield "waiting_tokens", "Tokens in the waiting line.", line.waiting_tokens
        yield (
            "padding_ratio",
            "Share of the tokens computed that was padding.",
            line.padding / computed if computed else 0.0,
        )
        cache = self._cache
        yield "cache_hits_total", "Texts answered from memory.", cache.hits
        yield "cache_disk_hits_total", "Texts answered from disk.", cache.disk_hits
        yield "cache_joined_total", "Texts that shared another's computation.", cache.joined
        yield "cache_misses_total", "Texts that had to be computed.", cache.misses
        yield "cache_evictions_total", "Vectors forgotten for want of room.", cache.memory.evictions
        yield "cache_bytes", "Memory of the vectors remembered.", cache.memory.bytes
        yield "cache_entries", "Vectors remembered.", cache.memory.entries

    async def close(self) -> None:
        await self._batcher.close()
        await self._cache.close()

    async def _tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Ids of the texts, some at a time: a long request lets short ones in between."""
        loop = asyncio.get_running_loop()
        ids: list[TokenIds] = []
        for first in range(0, len(texts), TEXTS):
            some = texts[first : first + TEXTS]
            encode = partial(self._tokenizer.encode, some, first=first, of=len(texts))
            ids += await loop.run_in_executor(self._threads, encode)
        return ids


class Registry:
    """Cards by name, engines by card; a card's engine is loaded once, when first asked for."""

    def __init__(self, cards: Cards, device: Device, settings: Settings) -> None:
        self.cards = cards
        self.device = device
        self._settings = settings
        # Work that is not the device's and must not hold the event loop. Apart, because a download
        # takes minutes.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self._files = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._engines: dict[str, asyncio.Task[Engine]] = {}

    def card(self, name: str) -> Card:
        """The card with that id or alias. Raises `ModelNotFound`."""
        card = self.cards.by_name.get(name)
        if card is None:
            raise ModelNotFound(name)
        return card

    async def engine(self, name: str) -> Engine:
        """The engine of the card with that id or alias, loaded if need be.

        Raises `ModelNotFound`, or `Unavailable` with the reason if it does not load.
        """
        card = self.card(name)
        try:
            return await self._loaded(card)
        except SetupError as error:
            raise Unavailable(str(error)) from None

    async def preload(self) -> list[Engine]:
        """Load the cards that ask for it. Raises `SetupError`."""
        return [await self._loaded(card) for card in self._preloaded()]

    async def ready(self) -> bool:
        """Whether every preloaded model is there and the device answers."""
        tasks = [self._engines.get(card.id) for card in self._preloaded()]
        loaded = all(task and task.done() and not task.exception() for task in tasks)
        return loaded and await self.device.answers(seconds=2)

    def engines(self) -> dict[str, Engine]:
        """The engines that are loaded, by the id of their card."""
        return {
            name: task.result()
            for name, task in self._engines.items()
            if task.done() and not task.cancelled() and not task.exception()
        }

    async def close(self) -> None:
        for engine in self.engines().values():
            await engine.close()
        for task in self._engines.values():
            task.cancel()
        self._tokenizing.shutdown(cancel_futures=True)
        self._files.shutdown(cancel_futures=True)

    def _preloaded(self) -> list[Card]:
        return [card for card in self.cards.by_id.values() if card.preload]

    async def _loaded(self, card: Card) -> Engine:
        task = self._engines.get(card.id)
        if task is None or (task.done() and task.exception()):  # failed before: try again
            task = self._engines[card.id] = asyncio.create_task(self._load(card))
        return await asyncio.shield(task)  # others may be waiting for it too

    async def _load(self, card: Card) -> Engine:
        loop = asyncio.get_running_loop()
        checkpoint = await loop.run_in_executor(self._files, open_checkpoint, card)
        tokenizer = await loop.run_in_executor(
            self._files, Tokenizer, card.id, checkpoint.folder, checkpoint.max_tokens
        )

        def load() -> Encoder:
            return load_encoder(self.device.make_ops(card.dtype), checkpoint)

        encoder = await self.device.run(load)
        store = await self._store(checkpoint, encoder)
        return Engine(
            checkpoint, tokenizer, encoder, self.device, self._tokenizing, self._settings, store
        )

    async def _store(self, checkpoint: Checkpoint, encoder: Encoder) -> Store | None:
        """The model's vectors on disk, if they are to be kept there."""
        folder = self._settings.cache_folder
        if folder is None:
            return None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()  # whether it can be written
        except OSError as error:
            raise CardsError(f"cache_folder {folder}: {error.strerror}") from None
        digest = partial(checkpoint.fingerprint, encoder.dtype)
        loop = asyncio.get_running_loop()
        return Store(
            folder,
            await loop.run_in_executor(self._files, digest),
            dimensions=encoder.dimensions,
            max_bytes=self._settings.cache_folder_bytes,
        )
