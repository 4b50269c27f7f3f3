"""Blocks through an embedder: some calls at a time, results in the order of the input."""

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

from embedsvc.bulk.batches import Block, Blocks
from embedsvc.bulk.embedder import Embedder, probe
from embedsvc.bulk.journal import Record
from embedsvc.bulk.manifest import How
from embedsvc.bulk.rows import Bad, Row, set_aside
from embedsvc.errors import BulkError, EmbeddingFailed, RequestError
from embedsvc.texts.late_chunking import Chunk

BLOCK_SECONDS = 0.25
"""Of work in a block: enough to fill batches, and little to be done again by who is killed."""
AHEAD = 3
"""Blocks in memory, for each call that may run at a time."""
NAMED = re.compile(r"'input\[(\d+)\]'")
"""How a refusal names the text it is about."""


class Embedding(NamedTuple):
    """A row with its vector, or those of its chunks."""

    row: Row
    vectors: NDArray[np.float32]  # (1, D) or (k, D)
    chunks: list[Chunk] | None


class Finished(NamedTuple):
    """A block, and what became of each of its rows."""

    block: Block
    results: list[Embedding | Bad]


@dataclass(slots=True)
class Totals:
    """Of everything that was embedded, since the first row was read that was not done before."""

    seconds: float = 0.0
    tokens: int = 0
    truncated: int = 0
    split: int = 0


class Pipeline:
    """One run of one embedder."""

    def __init__(self, embedder: Embedder, how: How) -> None:
        self.totals = Totals()
        self._embedder = embedder
        self._how = how
        self._gate = asyncio.Semaphore(embedder.calls)

    async def run(
        self, blocks: Blocks, after: Record, write: Callable[[list[Finished]], None]
    ) -> None:
        """Embed all blocks after a record; reading them and `write` have a thread each.

        Raises `BulkError` if they cannot be read, or the embedder cannot go on. By then `write` has
        had all blocks before that; those after it have to be embedded again. Raises what `write`
        raises.
        """
        loop = asyncio.get_running_loop()
        characters = 0
        pending: deque[asyncio.Task[Finished]] = deque()
        reading: asyncio.Future[Block | None] | None = None
        unread: BulkError | None = None
        ended = False
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
            try:
                await loop.run_in_executor(reader, blocks.pass_over, after.digest, after.items)
                began = loop.time()
                while pending or not ended:
                    if not ended and not reading and len(pending) < AHEAD * self._embedder.calls:
                        reading = loop.run_in_executor(reader, next, blocks, None)
                    await _first_of(reading, pending[0] if pending else None)
                    if reading and reading.done():
                        block, unread = _result(reading)
                        reading = None
                        if block:
                            pending.append(loop.create_task(self.finish(block)))
                        else:
                            ended = True
                    if finished := _take_finished(pending):
                        characters += sum(done.block.characters for done in finished)
                        self.totals.seconds = max(loop.time() - began, 1e-3)
                        rate = characters / self.totals.seconds
                        blocks.characters = round(rate * BLOCK_SECONDS)
                        await loop.run_in_executor(writer, write, finished)
            finally:
                blocks.stop()
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
        if unread is not None:
            raise unread

    async def finish(self, block: Block) -> Finished:
        """What becomes of a block's rows. Raises `BulkError` if the embedder cannot go on."""
        rows = [item for item in block.items if isinstance(item, Row)]
        embedded = iter(await self._embed(rows) if rows else [])
        return Finished(
            block, [next(embedded) if isinstance(item, Row) else item for item in block.items]
        )

    async def _embed(self, rows: Sequence[Row], *, last: bool = False) -> list[Embedding | Bad]:
        """Embed rows, and if they are refused, fewer of them, until those at fault are known.

        A single row that the embedder failed on is tried once more: that is the `last` time.
        """
        try:
            async with self._gate:
                done = await self._embedder.embed([row.text for row in rows], self._how)
        except RequestError as error:
            if len(rows) > 1:
                results: list[Embedding | Bad] = []
                for part in _parts(rows, str(error)):
                    results += await self._embed(part)
                return results
            if isinstance(error, EmbeddingFailed) and not last:
                await probe(self._embedder, self._how)  # if this fails too, it is not the row
                return await self._embed(rows, last=True)
            return [set_aside(rows[0], str(error))]
        self.totals.tokens += done.tokens
        self.totals.truncated += done.truncated
        self.totals.split += done.split
        if done.chunks is None:
            return [Embedding(row, done.vectors[i : i + 1], None) for i, row in enumerate(rows)]
        starts = np.cumsum([0, *map(len, done.chunks)])
        return [
            Embedding(row, done.vectors[starts[i] : starts[i + 1]], done.chunks[i])
            for i, row in enumerate(rows)
        ]


def _result(reading: asyncio.Future[Block | None]) -> tuple[Block | None, BulkError | None]:
    """The block that was read, or why there is none."""
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


def _take_finished(pending: deque[asyncio.Task[Finished]]) -> list[Finished]:
    """Take out those at the head that are done. Raises what the first of them raised."""
    finished: list[Finished] = []
    while pending and pending[0].done():
        if finished and pending[0].exception():
            break  # next time, when these are written
        finished.append(pending.popleft().result())
    return finished


def _parts(rows: Sequence[Row], refusal: str) -> list[Sequence[Row]]:
    """Rows that were refused together, in parts: by the one that is named, or in halves."""
    named = NAMED.search(refusal)
    first = int(named[1]) if named else 0
    cuts = [0, first, first + 1] if named and first < len(rows) else [0]
    middle = (cuts[-1] + len(rows)) // 2
    bounds = [*cuts, middle, len(rows)]
    parts = [rows[start:end] for start, end in pairwise(bounds)]
    return [part for part in parts if part]
