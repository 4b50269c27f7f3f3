"""A loaded model: from inputs to results, by way of its cache and its queue."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedsvc.bounds import CHUNKS
from embedsvc.catalog.cards import Dtype, Truncate
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.errors import BadRequest, EmbeddingFailed
from embedsvc.inference.device import Device
from embedsvc.inference.encoder import Encoder
from embedsvc.inference.heads import HEADS, SPARSE, comparable
from embedsvc.serving.batcher import Batcher
from embedsvc.serving.cache import Cache
from embedsvc.serving.chunked import find_chunks
from embedsvc.serving.disk_cache import DiskCache
from embedsvc.serving.embedded import Embedded, assemble
from embedsvc.serving.joint import unpacked
from embedsvc.serving.query_weights import QueryWeights
from embedsvc.settings import Settings
from embedsvc.telemetry.histogram import Histogram
from embedsvc.telemetry.record import current
from embedsvc.texts.explained import Token, explain
from embedsvc.texts.inputs import (
    DEFAULT_OPTIONS,
    Input,
    InputOptions,
    count_characters,
    tokenize,
)
from embedsvc.texts.item import Item
from embedsvc.texts.late_chunking import Tally
from embedsvc.texts.requests import Chunking, Offsets
from embedsvc.texts.steps import Steps, run_to_end
from embedsvc.texts.threads import Tokenizing
from embedsvc.texts.tokenizer import Tokenizer

T = TypeVar("T")
log = logging.getLogger(__name__)
APART = 0.2
"""How far two results of the same text may be apart, as a part of their length. Half precision does
not always give the same."""
SHORT = 500
"""Up to this many characters are tokenised sooner than a thread could be asked to do it."""
FEW = 64
"""Only fewer texts are tokenised on the event loop, or results unpacked without taking turns."""
SLOW_SECONDS = 0.05
"""A tokeniser that takes this long over short texts is not used on the event loop again."""


class Engine:
    """A loaded model: its tokeniser, its cache, its queue and its encoder. On the event loop."""

    def __init__(
        self,
        *,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        encoder: Encoder,
        device: Device,
        tokenizing: Tokenizing,
        settings: Settings,
        disk: DiskCache | None,
        fingerprint: str,
        queries: QueryWeights | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.dimensions = encoder.dimensions
        self.heads = tuple(encoder.heads)
        """The heads it has, the checkpoint's own first."""
        self.sparse_head = next((head for head in SPARSE if head in encoder.heads), SPARSE[0])
        self.queries = queries
        self.dtype: Dtype = encoder.dtype
        self.fingerprint = fingerprint
        """The vectors of two models may be compared if their fingerprints are the same."""
        self.max_batch_tokens = settings.max_batch_tokens or encoder.max_batch_tokens
        self.max_request_tokens = settings.max_request_tokens
        self.max_pair_tokens = settings.max_pair_tokens
        self.truncate: Truncate | None = settings.truncate
        """What becomes of inputs that are too long, where neither request nor card says it."""
        self.truncated = self.split = 0
        """Inputs that were cut, and that were split, since the model was loaded."""
        self.tokenize_seconds = Histogram()
        """Of requests, from their inputs to tokens."""
        self._tokenizing = tokenizing
        self._quick = not checkpoint.card.ad_hoc
        """Whether the tokeniser may be used on the event loop. A pattern in its files takes as long
        as its author likes, and nobody vouches for a model that a client chose."""
        self._encoder = encoder
        self.device = device
        self._first_check: NDArray[np.float32] | None = None
        """The result of the first `check`."""
        self._checked = -math.inf
        """When the last `check` that succeeded began."""
        self.batcher = Batcher(
            self._run_batch,
            cost=encoder.cost,
            grid=device.ops.grid,
            slots=device.ops.slots,
            max_batch_tokens=self.max_batch_tokens,
            max_waiting_tokens=settings.max_waiting_tokens,
        )
        self._unpacking = asyncio.Lock()
        """Held by one request while it unpacks many results, which takes a millisecond or two."""
        self.cache = Cache(self.batcher.submit, max_bytes=settings.cache_bytes, disk=disk)

    async def check(self) -> None:
        """Compute two tokens, bypassing cache and queue, and compare with the first such result.

        Raises whatever goes wrong.
        """
        began = time.monotonic()
        length = min(2, self.checkpoint.max_tokens)
        (result,) = await self._run_batch([Item(np.zeros(length, np.int32))], self.heads[0])
        found = comparable(self.heads[0], result)
        first = self._first_check = found if self._first_check is None else self._first_check
        apart, size = np.linalg.norm(found - first), np.linalg.norm(first)
        if not apart <= APART * max(size, 1e-3):
            raise EmbeddingFailed("it does not compute what it did before.")
        self._checked = began

    def computed_within(self, seconds: float) -> bool:
        """Whether it computed something in the last `seconds`, and has not failed since."""
        last = max(self.batcher.succeeded, self._checked)
        return last > self.batcher.failed and time.monotonic() - last < seconds

    async def embed(
        self,
        inputs: Sequence[Input],
        options: InputOptions = DEFAULT_OPTIONS,
        *,
        heads: Sequence[str] = ("vector",),
        queries: bool = False,
        read_cache: bool = True,
        write_cache: bool = True,
    ) -> Embedded:
        """What the heads give of the inputs, one or more: dense vectors, sparse ones, or both.

        `queries`: the inputs are queries, whose sparse vectors may need no pass. Raises
        `RequestError`.
        """
        for head in heads:
            self.check_head(head)
        work = tokenize(self.tokenizer, inputs, options)
        characters = count_characters(inputs, options)
        here = isinstance(inputs[0], str)  # token ids are decoded with a table: it is read first
        tokenized = await self.tokenized(work, len(inputs), characters, here=here)
        if queries and self.queries is not None:
            found = [self.queries.vectors(tokenized.items)]
        else:
            found = await self.run_joined(
                heads, tokenized.items, read=read_cache, write=write_cache
            )
        embedded = await assemble(
            dict(zip(heads, found, strict=True)),
            tokenized,
            normalize=self.checkpoint.normalize,
            token_name=self.tokenizer.name_of,
        )
        if embedded.split and options.rule.longest is not None and not self.split:
            self._warn_of_split()
        self.truncated += embedded.truncated
        self.split += embedded.split
        return embedded

    async def embed_chunks(
        self,
        inputs: Sequence[Input],
        options: InputOptions,
        chunking: Chunking | Sequence[Sequence[Offsets]],
        *,
        most_rows: int = CHUNKS,
        read_cache: bool = True,
        write_cache: bool = True,
    ) -> Embedded:
        """Vectors of the chunks of each input, by late chunking.

        `chunking` is one rule for all inputs, or the chunks of each. All inputs together may have
        `most_rows` chunks. Raises `RequestError`.
        """
        self.check_head("vector")
        if "spans" not in self.heads:
            raise BadRequest(
                "Late chunking needs a model with mean pooling, "
                f"and this one's is {' + '.join(self.checkpoint.pooling)}."
            )
        began = time.perf_counter()
        items, chunks = await find_chunks(
            self.tokenizer,
            self._tokenizing,
            inputs,
            options,
            chunking,
            Tally(most_rows),
            self.max_request_tokens,
        )
        self._time_tokenizing(began)
        vectors = await self.run("spans", items, read=read_cache, write=write_cache)
        return Embedded(vectors, sum(map(len, items)), chunks=chunks)

    async def run(
        self, head: str, items: Sequence[Item], *, read: bool = True, write: bool = True
    ) -> Any:
        """The results of items, one or more, unpacked by the head; see `inference/heads`.

        `read` and `write` say whether the cache may answer, and may keep what is computed.
        Raises `RequestError`, also if the model has no such head.
        """
        (results,) = await self.run_joined((head,), items, read=read, write=write)
        return results

    async def run_joined(
        self, heads: Sequence[str], items: Sequence[Item], *, read: bool = True, write: bool = True
    ) -> list[Any]:
        """What `run` returns, for each of several heads, which share the passes over the items."""
        for head in heads:
            self.check_head(head)
        results = await self.cache.get_joined(items, heads, read=read, write=write)
        if len(items) < FEW:
            return unpacked(heads, results, items)
        async with self._unpacking:  # many requests may have waited for the same batch
            found = unpacked(heads, results, items)
            await asyncio.sleep(0)
        return found

    async def tokenized(self, work: Steps[T], texts: int, characters: int, *, here: bool) -> T:
        """The result of work that tokenises so many texts for a request: by a thread, or `here` if
        that is sooner than to ask one. Raises `RequestError`, if the queue is full at once."""
        began = time.perf_counter()
        if here and texts < FEW and characters <= SHORT and self._quick:
            try:
                result = run_to_end(work)
            finally:
                self._quick = time.perf_counter() - began < SLOW_SECONDS
        else:
            # Each text has at least one token: a full queue refuses now, not after the work.
            self.batcher.check_room(texts)
            result = await self._tokenizing.run(work, characters)
        self._time_tokenizing(began)
        return result

    async def explain(self, texts: Sequence[str], *, special: bool) -> list[list[Token]]:
        """The tokens of each text. Raises `RequestError`."""
        work = explain(self.tokenizer, texts, special=special, most=self.max_request_tokens)
        return await self._tokenizing.run(work, sum(map(len, texts)))

    async def refuse(self) -> None:
        """Refuse what waits in the queue, and let the batches that run end."""
        await self.batcher.close()

    async def close(self) -> None:
        """Do as `refuse` does, and give the memory back."""
        await self.refuse()
        try:
            await self.cache.close()
        finally:  # whatever the disk is like
            await self.device.run(self._encoder.close)
            await self.device.run(self.device.ops.release)

    def check_head(self, head: str) -> None:
        """Raise `BadRequest` if the model does not have that head."""
        if head not in self.heads:
            raise BadRequest(
                f"Model `{self.checkpoint.card.id}` gives {HEADS[self.heads[0]].GIVES}, "
                f"not {HEADS[head].GIVES}."
            )

    def _run_batch(self, items: list[Item], head: str) -> Awaitable[list[bytes]]:
        """Compute a batch on the device: the batcher's `Run`."""
        device, encoder = self.device, self._encoder
        longest = encoder.cost.start + encoder.cost.of(max(map(len, items)))
        seconds = max(longest, encoder.cost.batch_seconds)
        if device.ops.pipelined:
            return device.run_pipelined(
                lambda: encoder.begin(items, head), encoder.collect, seconds
            )
        return device.run(lambda: encoder.run(items, head), seconds)

    def _warn_of_split(self) -> None:
        log.warning(
            "model %s takes %d tokens, and a text has more: it is embedded in parts, whose vectors "
            "are averaged, as are others from now on; see `truncate` for other ways",
            self.checkpoint.card.id,
            self.tokenizer.max_tokens,
        )

    def _time_tokenizing(self, began: float) -> None:
        now = time.perf_counter()
        self.tokenize_seconds.observe(now - began)
        if (record := current.get()) is not None:
            record.tokenize, record.tokenized = now - began, now
