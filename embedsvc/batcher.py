"""The waiting line of one model, and the batches made from it.

There is no timer: a text that finds the device free goes at once, and texts that arrive while
batches run share the next one. The line knows token counts, not models and not HTTP.
"""

import asyncio
import logging
import math
import time
from bisect import insort
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from embedsvc.cost import Cost
from embedsvc.errors import EmbeddingFailed, Overloaded, RequestError, Unavailable
from embedsvc.tokens import Text

WINDOW = 1024
"""Entries at the head of the line that a batch is chosen from."""

Encode = Callable[[list[Text]], Awaitable[Iterable[NDArray[np.float32]]]]
"""A vector (D,) of each text, or of a text with k spans (k, D)."""
Grid = Callable[[int, int], tuple[int, int]]
"""See `Ops.grid`."""
log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one request."""

    vectors: list[bytes | None]  # float32, (D,) each
    missing: int
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Entry:
    """One text in the line."""

    ids: Text
    due: float
    """When it would be served if its job had the device to itself: the line's order. So a long
    job's last texts stand behind a short job that comes later, and nothing waits for ever."""
    job: Job
    index: int


@dataclass(slots=True)
class Line:
    """Entries by `due`."""

    cost: Cost
    grid: Grid | None
    """What a pass is padded to, if it is: how many texts of what length it computes."""
    entries: list[Entry] = field(default_factory=list[Entry])
    tokens: int = 0
    seconds: float = 0.0
    """Of work, without what each pass takes to start."""

    def add(self, entry: Entry) -> None:
        insort(self.entries, entry, key=attrgetter("due"))
        self.tokens += len(entry.ids)
        self.seconds += self.cost.of(len(entry.ids))

    def drop(self, job: Job) -> None:
        """Take out what is left of a job."""
        self._take([entry for entry in self.entries if entry.job is job], len(self.entries))

    def next_batch(self, max_seconds: float, max_tokens: int) -> list[Entry]:
        """Take out the first entry and, of those behind it, the nearest in length.

        The batch is work for `max_seconds` and has `max_tokens`, padding included, unless the first
        entry alone is more; a text is padded, or makes others be padded, only where that costs less
        than a pass of its own.
        """
        window = self.entries[:WINDOW]
        length = len(window[0].ids)
        window.sort(key=lambda entry: abs(len(entry.ids) - length))  # stable: ties stay in order
        batch = [window[0]]
        longest, seconds = length, self._alone(length)
        for entry in window[1:]:
            count, widest = len(batch) + 1, max(longest, len(entry.ids))
            own, tokens = self._alone(len(entry.ids)), widest * count
            total = seconds + own
            if self.grid is not None:
                texts, length = self.grid(count, widest)
                total, tokens = count * self.cost.of(length), texts * length
            if total > max_seconds or tokens > max_tokens:
                break
            if total - seconds > own + self.cost.start:
                continue
            batch.append(entry)
            longest, seconds = widest, total
        batch = batch[: self._filled(len(batch), longest)]
        self._take(batch, WINDOW)
        return batch

    def _alone(self, length: int) -> float:
        """Seconds that a text adds to a pass where others are no longer."""
        return self.cost.of(length if self.grid is None else self.grid(1, length)[1])

    def _filled(self, count: int, longest: int) -> int:
        """How many of so many texts to take: fewer where filling up costs more than a pass."""
        if self.grid is None:
            return count
        texts, length = self.grid(count, longest)
        if (texts - count) * self.cost.of(length) <= self.cost.start:
            return count
        return next(n for n in range(count, 0, -1) if self.grid(n, longest)[0] == n)

    def padding(self, lengths: Sequence[int]) -> int:
        """Tokens that a batch of such texts computes beside theirs."""
        if self.grid is None:
            return 0
        texts, length = self.grid(len(lengths), max(lengths))
        return texts * length - sum(lengths)

    def _take(self, taken: list[Entry], among: int) -> None:
        """Take out entries that are among so many first."""
        gone = set(map(id, taken))
        self.entries[:among] = [e for e in self.entries[:among] if id(e) not in gone]
        self.tokens -= sum(len(entry.ids) for entry in taken)
        self.seconds -= sum(self.cost.of(len(entry.ids)) for entry in taken)
        if not self.entries:
            self.seconds = 0.0  # and not what rounding left


class Batcher:
    """Runs on the event loop; `encode` does the work elsewhere, in `slots` calls at a time."""

    def __init__(
        self,
        encode: Encode,
        *,
        cost: Cost,
        grid: Grid | None,
        slots: int,
        max_batch_tokens: int,
        max_waiting_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encode = encode
        self._cost = cost
        self._slots = slots
        self._max_batch_tokens = max_batch_tokens
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._line = Line(cost, grid)
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self.batches = 0
        self.texts = 0
        self.tokens = 0
        self.padding = 0
        """Tokens computed beside those of texts."""

    @property
    def waiting_tokens(self) -> int:
        return self._line.tokens

    async def embed(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Vectors (n, D) of n texts, in their order.

        Cancelled, it gives up its place in the line. Raises `Overloaded` where the line is full,
        `Unavailable` when closing, `EmbeddingFailed` if the model fails on one of the texts.
        """
        if self._closed:
            raise Unavailable("The server is shutting down.")
        tokens = sum(map(len, texts))
        if self._line.tokens and self._line.tokens + tokens > self._max_waiting_tokens:
            wait = math.ceil(self._line.seconds / self._slots)
            raise Overloaded(self._line.tokens, self._max_waiting_tokens, min(max(wait, 1), 59))
        loop = asyncio.get_running_loop()
        job = Job([None] * len(texts), len(texts), loop.create_future())
        due = self._clock()
        for index, ids in enumerate(texts):
            self._line.add(Entry(ids, due, job, index))
            due += self._cost.of(len(ids))
        # Not now: whoever else arrives in this turn of the event loop shares the batch.
        loop.call_soon(self._start_batches)
        try:
            await job.done
        except asyncio.CancelledError:
            self._line.drop(job)
            raise
        rows = bytearray().join([vector for vector in job.vectors if vector is not None])
        return np.frombuffer(rows, np.float32).reshape(len(texts), -1)  # faster than np.stack

    async def close(self) -> None:
        """Refuse what waits and what comes; return when what runs has finished."""
        self._closed = True
        for entry in self._line.entries:
            _fail(entry.job, Unavailable("The server is shutting down."))
        self._line.entries = []
        if self._running:
            await asyncio.wait(self._running)

    def _start_batches(self) -> None:
        while self._line.entries and (free := self._slots - len(self._running)):
            # Free slots share what waits, if that is enough to be worth a pass each.
            share = max(self._cost.share, 1.01 * self._line.seconds / free)  # 1.01: rounding
            seconds = min(self._cost.batch, share)
            batch = self._line.next_batch(seconds, self._max_batch_tokens)
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        task.result()  # what `_run` did not expect is a bug: let the loop report it
        self._start_batches()

    async def _run(self, batch: list[Entry]) -> None:
        try:
            vectors = await self._encode([entry.ids for entry in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, only this batch fails
            await self._failed(batch, error)
            return
        self._count(batch)
        for entry, vector in zip(batch, vectors, strict=True):
            job = entry.job
            job.vectors[entry.index] = vector.tobytes()
            job.missing -= 1
            if not job.missing and not job.done.done():
                job.done.set_result(None)

    def _count(self, batch: list[Entry]) -> None:
        lengths = [len(entry.ids) for entry in batch]
        self.batches += 1
        self.texts += len(batch)
        self.tokens += sum(lengths)
        self.padding += self._line.padding(lengths)

    async def _failed(self, batch: list[Entry], error: Exception) -> None:
        """Try the halves of a batch that failed, so that only the texts at fault fail."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._run(batch[:middle])
            await self._run(batch[middle:])
            return
        entry = batch[0]
        if not isinstance(error, RequestError):
            log.error("a text of %d tokens failed", len(entry.ids), exc_info=error)
            error = EmbeddingFailed("The server had an error while processing your request.")
        self._line.drop(entry.job)
        _fail(entry.job, error)


def _fail(job: Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
