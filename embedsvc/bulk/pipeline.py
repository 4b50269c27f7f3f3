"""Batches through an embedder: several calls at a time, results in the order of the input."""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.batches import Batch, BatchReader
from embedsvc.bulk.embedder import Embedder, probe
from embedsvc.bulk.journal import Record
from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.bulk.rows import BadRow, Row, set_aside
from embedsvc.errors import BulkError, EmbeddingFailed, RequestError
from embedsvc.serving.embedded import SparseVector
from embedsvc.texts.late_chunking import Chunk

BATCH_SECONDS = 0.25
"""How much work a batch should be: enough to fill forward passes, and little to do again after a
run was killed."""
BATCHES_PER_CALL = 3
"""How many batches are in memory for each call that may run at a time."""
NAMED_INPUT = re.compile(r"'input\[(\d+)\]'")
"""How a refusal names the text that it is about."""


class Embedding(NamedTuple):
    """A row with its vector, or with the vectors of its chunks."""

    row: Row
    vectors: NDArray[np.float32] | list[SparseVector]  # (1, D) or (k, D), or a sparse one
    chunks: list[Chunk] | None


class EmbeddedBatch(NamedTuple):
    """A batch, and what became of each of its rows."""

    batch: Batch
    results: list[Embedding | BadRow]


@dataclass(slots=True)
class Totals:
    """Sums over everything that a run embedded."""

    seconds: float = 0.0
    """Since the first row was read that an earlier run had not done."""
    tokens: int = 0
    truncated: int = 0
    split: int = 0


class Pipeline:
    """Embeds batches with one embedder."""

    def __init__(self, embedder: Embedder, options: EmbedOptions) -> None:
        self.totals = Totals()
        self._embedder = embedder
        self._options = options
        self._calls = asyncio.Semaphore(embedder.calls)

    async def run(
        self, batches: BatchReader, after: Record, write: Callable[[list[EmbeddedBatch]], None]
    ) -> None:
        """Embed all batches after a record. Reading and `write` have a thread each.

        Raises `BulkError` if a batch cannot be read, or if the embedder cannot go on. By then,
        `write` has been called for all batches before that one; later batches have to be embedded
        again. Raises what `write` raises.
        """
        loop = asyncio.get_running_loop()
        characters = 0
        pending: deque[asyncio.Task[EmbeddedBatch]] = deque()
        reading: asyncio.Future[Batch | None] | None = None
        unread: BulkError | None = None
        ended = False
        ahead = BATCHES_PER_CALL * self._embedder.calls
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            try:
                await loop.run_in_executor(reader, batches.skip, after.digest, after.items)
                began = loop.time()
                while pending or not ended:
                    if not ended and not reading and len(pending) < ahead:
                        reading = loop.run_in_executor(reader, next, batches, None)
                    await _first_of(reading, pending[0] if pending else None)
                    if reading and reading.done():
                        batch, unread = _result(reading)
                        reading = None
                        if batch:
                            pending.append(loop.create_task(self.embed_batch(batch)))
                        else:
                            ended = True
                    if finished := _take_finished(pending):
                        characters += sum(done.batch.characters for done in finished)
                        self.totals.seconds = max(loop.time() - began, 1e-3)
                        rate = characters / self.totals.seconds
                        batches.characters = round(rate * BATCH_SECONDS)
                        await loop.run_in_executor(writer, write, finished)
            finally:
                batches.stop()
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
        if unread is not None:
            raise unread

    async def embed_batch(self, batch: Batch) -> EmbeddedBatch:
        """Embed the rows of a batch. Raises `BulkError` if the embedder cannot go on."""
        rows = [item for item in batch.items if isinstance(item, Row)]
        embedded = iter(await self._embed(rows) if rows else [])
        return EmbeddedBatch(
            batch, [next(embedded) if isinstance(item, Row) else item for item in batch.items]
        )

    async def _embed(self, rows: Sequence[Row], *, again: bool = False) -> list[Embedding | BadRow]:
        """Embed rows. If they are refused, embed fewer at a time, until the bad ones are known.

        A single row that the embedder failed on is tried once more, with `again`.
        """
        try:
            async with self._calls:
                done = await self._embedder.embed([row.text for row in rows], self._options)
        except RequestError as error:
            if len(rows) > 1:
                results: list[Embedding | BadRow] = []
                for part in _parts(rows, str(error)):
                    results += await self._embed(part)
                return results
            if isinstance(error, EmbeddingFailed) and not again:
                await probe(self._embedder, self._options)  # if this fails too, it is not the row
                return await self._embed(rows, again=True)
            return [set_aside(rows[0], str(error))]
        self.totals.tokens += done.tokens
        self.totals.truncated += done.truncated
        self.totals.split += done.split
        if done.sparse is not None:
            return [
                Embedding(row, [vector], None)
                for row, vector in zip(rows, done.sparse, strict=True)
            ]
        if done.chunks is None:
            return [Embedding(row, done.vectors[i : i + 1], None) for i, row in enumerate(rows)]
        starts = np.cumsum([0, *map(len, done.chunks)])
        return [
            Embedding(row, done.vectors[starts[i] : starts[i + 1]], done.chunks[i])
            for i, row in enumerate(rows)
        ]


def _result(reading: asyncio.Future[Batch | None]) -> tuple[Batch | None, BulkError | None]:
    """The batch that was read, or why there is none."""
    try:
        return reading.result(), None
    except BulkError as error:
        return None, error


async def _first_of(*tasks: Awaitable[object] | None) -> None:
    """Wait until one of the tasks is done."""
    await asyncio.wait(
        [asyncio.ensure_future(task) for task in tasks if task],
        return_when=asyncio.FIRST_COMPLETED,
    )


def _take_finished(pending: deque[asyncio.Task[EmbeddedBatch]]) -> list[EmbeddedBatch]:
    """Take the finished batches from the head of the queue. Raises what the first one raised."""
    finished: list[EmbeddedBatch] = []
    while pending and pending[0].done():
        if finished and pending[0].exception():
            break  # it is raised at the next call, when these are written
        finished.append(pending.popleft().result())
    return finished


def _parts(rows: Sequence[Row], refusal: str) -> list[Sequence[Row]]:
    """Split rows that were refused together: around the one that is named, or into halves.

    >>> rows = [Row("in.txt", line, line, "text", {}) for line in range(1, 7)]
    >>> [len(part) for part in _parts(rows, "Invalid 'input[1]': too long")]
    [1, 1, 2, 2]
    >>> [len(part) for part in _parts(rows, "it failed")]
    [3, 3]
    """
    named = NAMED_INPUT.search(refusal)
    first = int(named[1]) if named else 0
    cuts = [0, first, first + 1] if named and first < len(rows) else [0]
    middle = (cuts[-1] + len(rows)) // 2
    bounds = [*cuts, middle, len(rows)]
    parts = [rows[start:end] for start, end in pairwise(bounds)]
    return [part for part in parts if part]
