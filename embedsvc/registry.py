"""The models that are loaded: an engine for each card in use."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from embedsvc.batcher import Batcher
from embedsvc.cache import Cache
from embedsvc.cards import Card, Cards, Prompts
from embedsvc.checkpoint import Checkpoint, open_checkpoint
from embedsvc.device import Device
from embedsvc.encoder import Encoder, load_encoder
from embedsvc.errors import (
    BadRequest,
    CardsError,
    ModelNotFound,
    SetupError,
    TooManyTokens,
    Unavailable,
)
from embedsvc.inputs import PLAIN, Input, Reading, Tokenized, tokenize, tokenize_chunks
from embedsvc.late_chunking import Chunk
from embedsvc.prompts import split_name
from embedsvc.requests import Chunking, Offsets
from embedsvc.settings import Settings
from embedsvc.store import Store
from embedsvc.tokenizer import Tokenizer, open_tokenizer
from embedsvc.tokens import SpannedText, Text
from embedsvc.truncation import average

TEXTS = 64
"""Texts tokenised at a time."""
SHORT = 500
"""Characters that are tokenised sooner than a thread could be asked to."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to one request."""

    vectors: NDArray[np.float32]  # (n, D)
    tokens: int
    """Of all texts, special tokens included."""
    truncated: int = 0
    """Inputs that were cut."""
    split: int = 0
    """Inputs whose vectors are averages of their parts'."""
    chunks: list[list[Chunk]] | None = None
    """With late chunking, the chunks of each input; `vectors` has a row for each chunk."""


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
        self.tokenizer = tokenizer
        self.dimensions = encoder.dimensions
        self.dtype = encoder.dtype
        self.max_batch_tokens = settings.max_batch_tokens or device.ops.max_batch_tokens
        self.truncated = self.split = 0
        self._threads = threads
        self._max_request_tokens = settings.max_request_tokens

        async def encode(texts: list[Text]) -> Iterable[NDArray[np.float32]]:
            plain = [text for text in texts if not isinstance(text, SpannedText)]
            if len(plain) < len(texts):
                return await device.run(lambda: encoder.encode_spans(texts))
            if device.ops.pipelined:
                begun = await device.run(lambda: encoder.begin(plain))
                return await device.wait(lambda: encoder.finish(begun))
            return await device.run(lambda: encoder.encode(plain))

        self._batcher = Batcher(
            encode,
            cost=encoder.cost,
            grid=device.ops.grid,
            slots=device.ops.slots,
            max_batch_tokens=self.max_batch_tokens,
            max_waiting_tokens=settings.max_waiting_tokens,
        )
        self._cache = Cache(self._batcher.embed, max_bytes=settings.cache_bytes, store=store)

    async def embed(
        self,
        inputs: Sequence[Input],
        reading: Reading = PLAIN,
        *,
        read_cache: bool = True,
        write_cache: bool = True,
    ) -> Embedded:
        """Vectors of the inputs, one or more. Raises `RequestError`."""
        read = await self._tokenize(inputs, reading)
        lengths = list(map(len, read.texts))
        self._check_tokens(sum(lengths))
        vectors = await self._cache.embed(read.texts, read=read_cache, write=write_cache)
        split = sum(parts > 1 for parts in read.parts)
        if split:
            normalize = self.checkpoint.normalize
            vectors = average(vectors, lengths, read.parts, normalize=normalize)
        self.truncated += read.cut
        self.split += split
        return Embedded(vectors, sum(lengths), read.cut, split)

    async def embed_chunks(
        self,
        inputs: Sequence[Input],
        reading: Reading,
        wanted: Chunking | Sequence[Sequence[Offsets]],
        *,
        read_cache: bool = True,
        write_cache: bool = True,
    ) -> Embedded:
        """Vectors of the chunks of each input, by late chunking. Raises `RequestError`."""
        if self.checkpoint.pooling != ("mean",):
            raise BadRequest(
                "Late chunking needs a model with mean pooling, "
                f"and this one's is {' + '.join(self.checkpoint.pooling)}."
            )
        loop = asyncio.get_running_loop()
        texts: list[SpannedText] = []
        chunks: list[list[Chunk]] = []
        for index, value in enumerate(inputs):
            each = wanted if isinstance(wanted, Chunking) else wanted[index]
            spanned = partial(tokenize_chunks, index=index, of=len(inputs))
            text, told = await loop.run_in_executor(
                self._threads, spanned, self.tokenizer, value, reading, each
            )
            texts.append(text)
            chunks.append(told)
        tokens = sum(map(len, texts))
        self._check_tokens(tokens)
        # Their answers have many lengths, so each is a call of its own; batches are shared.
        calls = [
            asyncio.ensure_future(self._cache.embed([text], read=read_cache, write=write_cache))
            for text in texts
        ]
        try:
            found = await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
        rows = [vectors.reshape(-1, self.dimensions) for vectors in found]
        return Embedded(np.concatenate(rows), tokens, chunks=chunks)

    async def explain(self, texts: Sequence[str], *, special: bool) -> list[Encoding]:
        """The tokens of texts, as the tokeniser's library gives them."""
        loop = asyncio.get_running_loop()
        explain = partial(self.tokenizer.explain, texts, special=special)
        return await loop.run_in_executor(self._threads, explain)

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
        yield "truncated_total", "Inputs of which something was left out.", self.truncated
        yield "split_total", "Inputs that were embedded in parts.", self.split
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

    async def _tokenize(self, inputs: Sequence[Input], reading: Reading) -> Tokenized:
        """The inputs in tokens, some at a time: a long request lets short ones in between."""
        # Ids are decoded with a table that is read when first needed, and not on the event loop.
        texts = len(inputs) < TEXTS and isinstance(inputs[0], str)
        if texts and sum(map(len, inputs)) <= SHORT:
            return tokenize(self.tokenizer, inputs, reading, of=len(inputs))
        loop = asyncio.get_running_loop()
        read: list[Tokenized] = []
        for first in range(0, len(inputs), TEXTS):
            some = inputs[first : first + TEXTS]
            work = partial(tokenize, self.tokenizer, some, reading, first=first, of=len(inputs))
            read.append(await loop.run_in_executor(self._threads, work))
        if len(read) == 1:
            return read[0]
        return Tokenized(
            [text for part in read for text in part.texts],
            [count for part in read for count in part.parts],
            sum(part.cut for part in read),
        )

    def _check_tokens(self, tokens: int) -> None:
        if tokens > self._max_request_tokens:
            raise TooManyTokens(tokens, self._max_request_tokens)


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

    def card(self, name: str) -> tuple[Card, str | None]:
        """The card with that id or alias, and the prompt that the name names, if any.

        Raises `ModelNotFound`.
        """
        found = split_name(name, self.cards, self._prompts)
        if found is None:
            raise ModelNotFound(name)
        return found

    def names(self) -> list[str]:
        """Every name that clients may ask for: ids, aliases, ids with a prompt of the model's."""
        cards = self.cards.by_id.values()
        prompted = [f"{card.id}:{prompt}" for card in cards for prompt in self._prompts(card)]
        return [*self.cards.by_name, *prompted]

    async def engine(self, name: str) -> Engine:
        """The engine of the card with that id or alias, loaded if need be.

        Raises `ModelNotFound`, or `Unavailable` with the reason if it does not load.
        """
        card, _ = self.card(name)
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

    def _prompts(self, card: Card) -> Prompts:
        """The prompts known so far: a model that is not loaded may have more in its files."""
        engine = self.engines().get(card.id)
        return engine.checkpoint.prompts if engine else card.prompts or {}

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
        tokenizer = await loop.run_in_executor(self._files, open_tokenizer, checkpoint)

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
