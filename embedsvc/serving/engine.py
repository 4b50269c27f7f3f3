"""A loaded model: from inputs to results, by way of its cache and its waiting line."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.bounds import CHUNKS
from embedsvc.catalog.cards import Truncate
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.errors import BadRequest, EmbeddingFailed, TooManyTokens
from embedsvc.inference.device import Device
from embedsvc.inference.encoder import Encoder
from embedsvc.inference.heads import HEADS
from embedsvc.serving.batcher import Batcher
from embedsvc.serving.cache import Cache
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.settings import Settings
from embedsvc.telemetry.histogram import Histogram
from embedsvc.telemetry.record import current
from embedsvc.texts.explained import Token, explain
from embedsvc.texts.inputs import (
    PLAIN,
    Input,
    Reading,
    Tokenized,
    size,
    tokenize,
    tokenize_chunks,
)
from embedsvc.texts.item import Item
from embedsvc.texts.late_chunking import Chunk, Tally
from embedsvc.texts.requests import Chunking, Offsets
from embedsvc.texts.steps import finish
from embedsvc.texts.threads import Tokenizing
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import average, more_than

log = logging.getLogger(__name__)
APART = 0.2
"""Between what is computed twice, by its length, at most; half precision is not always the same."""
SHORT = 500
"""Characters that are tokenised sooner than a thread could be asked to."""
FEW = 64
"""Texts of which the same is true, and results that are unpacked in no time."""
_GIVEN = {"scores": "scores", "spans": "vectors of chunks", "vector": "vectors"}
"""What heads give, in the words of an error."""
SLOW_SECONDS = 0.05
"""Over texts so short, a tokeniser that takes as long is not used on the event loop again."""


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
        tokenizing: Tokenizing,
        settings: Settings,
        disk: DiskCache | None,
        fingerprint: str,
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.dimensions = encoder.dimensions
        self.heads = tuple(encoder.heads)
        """What it gives, its own before what is made of it."""
        self.dtype = encoder.dtype
        self.fingerprint = fingerprint
        """Vectors of two models with the same one may be compared."""
        self.max_batch_tokens = settings.max_batch_tokens or device.ops.max_batch_tokens
        self.max_request_tokens = settings.max_request_tokens
        self.truncate: Truncate | None = settings.truncate
        """What becomes of inputs that are too long, where neither request nor card says."""
        self.truncated = self.split = 0
        self.tokenize_seconds = Histogram()
        self._tokenizing = tokenizing
        self._quick = not checkpoint.card.ad_hoc
        """Whether its tokeniser may be used on the event loop: a model's files may have a pattern
        that takes as long as whoever made them likes, and nobody vouches for a client's choice."""
        self._encoder = encoder
        self._device = device
        self._first_check: NDArray[np.float32] | None = None
        self._checked = -math.inf
        self._batcher = Batcher(
            self._run,
            cost=encoder.cost,
            grid=device.ops.grid,
            slots=device.ops.slots,
            max_batch_tokens=self.max_batch_tokens,
            max_waiting_tokens=settings.max_waiting_tokens,
        )
        self._unpacking = asyncio.Lock()
        """Held while many results are unpacked, which takes a millisecond or two."""
        self._cache = Cache(self._batcher.submit, max_bytes=settings.cache_bytes, disk=disk)

    async def check(self) -> None:
        """Compute something tiny, past line and cache, and what it was at the first time.

        Raises whatever goes wrong.
        """
        began = time.monotonic()
        length = min(2, self.checkpoint.max_tokens)
        (result,) = await self._run([Item(np.zeros(length, np.int32))], self.heads[0])
        found = np.frombuffer(result, "<f4")
        first = self._first_check = found if self._first_check is None else self._first_check
        apart, size = np.linalg.norm(found - first), np.linalg.norm(first)
        if not apart <= APART * max(size, 1e-3):
            raise EmbeddingFailed("it does not compute what it did before.")
        self._checked = began

    def well_within(self, seconds: float) -> bool:
        """Whether it computed something in the last so many seconds, and has not failed since."""
        line = self._batcher
        last = max(line.succeeded, self._checked)
        return last > line.failed and time.monotonic() - last < seconds

    async def embed(
        self,
        inputs: Sequence[Input],
        reading: Reading = PLAIN,
        *,
        read_cache: bool = True,
        write_cache: bool = True,
    ) -> Embedded:
        """Vectors of the inputs, one or more. Raises `RequestError`."""
        self.check_head("vector")
        began = time.perf_counter()
        read = await self._tokenize(inputs, reading)
        self._tokenized(began)
        lengths = list(map(len, read.items))
        vectors = await self.run("vector", read.items, read=read_cache, write=write_cache)
        split = sum(parts > 1 for parts in read.parts)
        if split:
            normalize = self.checkpoint.normalize
            vectors = average(vectors, lengths, read.parts, normalize=normalize)
            if reading.rule.longest is not None and not self.split:
                self._warn_of_split()
        self.truncated += read.cut
        self.split += split
        return Embedded(vectors, sum(lengths), read.cut, split)

    async def embed_chunks(
        self,
        inputs: Sequence[Input],
        reading: Reading,
        wanted: Chunking | Sequence[Sequence[Offsets]],
        *,
        most_rows: int = CHUNKS,
        read_cache: bool = True,
        write_cache: bool = True,
    ) -> Embedded:
        """Vectors of the chunks of each input, by late chunking. Raises `RequestError`.

        `most_rows` is how many there may be, of all inputs.
        """
        self.check_head("vector")
        if "spans" not in self.heads:
            raise BadRequest(
                "Late chunking needs a model with mean pooling, "
                f"and this one's is {' + '.join(self.checkpoint.pooling)}."
            )
        began = time.perf_counter()
        items: list[Item] = []
        chunks: list[list[Chunk]] = []
        tally = Tally(most_rows)
        tokens = 0
        for index, value in enumerate(inputs):
            each = wanted if isinstance(wanted, Chunking) else wanted[index]
            work = tokenize_chunks(
                self.tokenizer, value, reading, each, index=index, of=len(inputs)
            )
            item, told = await self._tokenizing.run(work, size([value], reading))
            tally.add(item)
            items.append(item)
            chunks.append(told)
            tokens += len(item)
            if tokens > self.max_request_tokens:
                last = index == len(inputs) - 1
                raise TooManyTokens(tokens if last else more_than(tokens), self.max_request_tokens)
        self._tokenized(began)
        vectors = await self.run("spans", items, read=read_cache, write=write_cache)
        return Embedded(vectors, tokens, chunks=chunks)

    async def run(
        self, head: str, items: Sequence[Item], *, read: bool = True, write: bool = True
    ) -> Any:
        """The results of items, one or more, as the head has them; see `heads`.

        `read` and `write` say whether the cache may answer, and may keep what is computed.

        Raises `RequestError`, also if the model has no such head.
        """
        self.check_head(head)
        results = await self._cache.get(items, head, read=read, write=write)
        if len(items) <= FEW:
            return HEADS[head].unpack(results, items)
        async with self._unpacking:  # many may have waited for the same batch
            found = HEADS[head].unpack(results, items)
            await asyncio.sleep(0)
        return found

    async def explain(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text. Raises `RequestError`."""
        work = explain(self.tokenizer, texts, special=special, most=self.max_request_tokens)
        return await self._tokenizing.run(work, sum(map(len, texts)))

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
        disk = cache.disk
        yield "cache_disk_dropped_total", "Too many to be written.", disk.dropped if disk else 0
        failures = disk.file.errors if disk else 0
        yield "cache_disk_failures_total", "Reads and writes that the disk refused.", failures
        yield "cache_bytes", "Memory of the vectors remembered.", cache.memory.bytes
        yield "cache_entries", "Vectors remembered.", cache.memory.entries

    def histograms(self) -> Iterator[tuple[str, str, Histogram]]:
        """Name, meaning and values of everything measured."""
        line = self._batcher
        yield "tokenize_seconds", "From a request's inputs to its tokens.", self.tokenize_seconds
        yield "queue_seconds", "Requests waiting for the device.", line.queue_seconds
        yield "forward_seconds", "Batches, from the line to their vectors.", line.forward_seconds
        yield "batch_texts", "Texts of a batch.", line.batch_texts
        yield "batch_tokens", "Tokens of a batch, without padding.", line.batch_tokens

    async def refuse(self) -> None:
        """Refuse what waits, finish what runs."""
        await self._batcher.close()

    async def close(self) -> None:
        """Refuse what waits, finish what runs, and give the memory back."""
        await self._batcher.close()
        await self._cache.close()
        await self._device.run(self._encoder.close)
        await self._device.run(self._device.ops.release)

    def check_head(self, head: str) -> None:
        """Raises `BadRequest` if the model does not give that."""
        if head not in self.heads:
            raise BadRequest(
                f"Model `{self.checkpoint.card.id}` gives {_GIVEN[self.heads[0]]}, "
                f"not {_GIVEN[head]}."
            )

    def _run(self, items: list[Item], head: str) -> Awaitable[list[bytes]]:
        device, encoder = self._device, self._encoder
        longest = encoder.cost.start + encoder.cost.of(max(map(len, items)))
        seconds = max(longest, encoder.cost.batch)
        if device.ops.pipelined:
            return self._run_in_two(items, head, seconds)
        return device.run(lambda: encoder.run(items, head), seconds)

    async def _run_in_two(self, items: list[Item], head: str, seconds: float) -> list[bytes]:
        """The device is free for the next batch as soon as it was told all of this one."""
        device, encoder = self._device, self._encoder
        begun = await device.run(lambda: encoder.begin(items, head), seconds)
        return await device.wait(lambda: encoder.collect(begun), seconds)

    async def _tokenize(self, inputs: Sequence[Input], reading: Reading) -> Tokenized:
        """The inputs in tokens; on the event loop only if that is sooner done than asked for."""
        work = tokenize(self.tokenizer, inputs, reading)
        characters = size(inputs, reading)
        # Ids are decoded with a table that is read when first needed.
        texts = len(inputs) < FEW and isinstance(inputs[0], str)
        if texts and characters <= SHORT and self._quick:
            began = time.perf_counter()
            try:
                return finish(work)
            finally:
                self._quick = time.perf_counter() - began < SLOW_SECONDS
        self._batcher.check_room(len(inputs))  # before work is done for nothing
        return await self._tokenizing.run(work, characters)

    def _warn_of_split(self) -> None:
        log.warning(
            "model %s takes %d tokens, and a text has more: it is embedded in parts, whose vectors "
            "are averaged, as are others from now on; see `truncate` for other ways",
            self.checkpoint.card.id,
            self.tokenizer.max_tokens,
        )

    def _tokenized(self, began: float) -> None:
        now = time.perf_counter()
        self.tokenize_seconds.observe(now - began)
        record = current.get()
        if record is not None:
            record.tokenize, record.tokenized = now - began, now
