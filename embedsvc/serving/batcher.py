"""What takes requests into the waiting line of one model, and runs batches made from it.

There is no timer: a text that finds the device free goes at once, and texts that arrive while
batches run share the next one. It knows token counts, not models and not HTTP.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from embedsvc.errors import EmbeddingFailed, Overloaded, RequestError, Unavailable
from embedsvc.inference.pass_cost import Cost
from embedsvc.serving.queue import Entry, Grid, Job, Line
from embedsvc.telemetry.histogram import SIZES, Histogram
from embedsvc.telemetry.record import current
from embedsvc.texts.item import Item

log = logging.getLogger(__name__)


class Run(Protocol):
    """Computes a batch: the result of each item by one head."""

    def __call__(self, items: list[Item], head: str, /) -> Awaitable[list[bytes]]: ...


class Batcher:
    """Lives on the event loop; `run` does the work elsewhere, in `slots` calls at a time."""

    def __init__(
        self,
        run: Run,
        *,
        cost: Cost,
        grid: Grid | None,
        slots: int,
        max_batch_tokens: int,
        max_waiting_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._cost = cost
        self._slots = slots
        self._max_batch_tokens = max_batch_tokens
        self._max_waiting_tokens = max_waiting_tokens
        self._clock = clock
        self._line = Line(cost, grid)
        self._running: set[asyncio.Future[list[bytes]]] = set()
        self._halves: list[list[Entry]] = []
        """Of batches that failed, to be tried by themselves; the next one last."""
        self._closed = False
        self.batches = 0
        self.texts = 0
        self.tokens = 0
        self.padding = 0
        """Tokens computed beside those of texts."""
        self.queue_seconds = Histogram()
        """Of requests, until the first of their texts went to the device."""
        self.forward_seconds = Histogram()
        """Of batches, from the line to their vectors."""
        self.batch_texts = Histogram(SIZES)
        self.batch_tokens = Histogram(SIZES)
        self.succeeded = self.failed = -math.inf
        """When a batch did so last."""
        self._pace = 1.0
        """Seconds that batches took lately, by those they were to take."""

    @property
    def waiting_tokens(self) -> int:
        return self._line.tokens

    def submit(self, items: Sequence[Item], head: str) -> asyncio.Future[list[bytes]]:
        """The results of items by a head, in their order; cancelled, they leave the line.

        Its exceptions: `Overloaded` where the line is full, `Unavailable` when closing,
        `EmbeddingFailed` if the model fails on one of the items.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[bytes]] = loop.create_future()
        try:
            if self._closed:
                raise Unavailable("The server is shutting down.")
            self.check_room(sum(map(len, items)))
        except RequestError as error:
            done.set_exception(error)
            return done
        arrived = self._clock()
        job = Job(head, [b""] * len(items), len(items), done, arrived, current.get())
        self._line.add(job, items, arrived)
        done.add_done_callback(partial(self._left, job))
        # Not now: whoever else arrives in this turn of the event loop shares the batch.
        loop.call_soon(self._start_batches)
        return done

    def check_room(self, tokens: int) -> None:
        """Raises `Overloaded` where so many more do not fit in the line; if it is empty, all do."""
        if self._line.tokens and self._line.tokens + tokens > self._max_waiting_tokens:
            wait = math.ceil(self._line.seconds * self._pace / self._slots)
            raise Overloaded(self._line.tokens, self._max_waiting_tokens, min(max(wait, 1), 59))

    async def close(self) -> None:
        """Refuse what waits and what comes; return when what runs has finished."""
        self._closed = True
        for entry in self._line.clear():
            _fail(entry.job, Unavailable("The server is shutting down."))
        while self._running:
            await asyncio.wait(self._running)

    def _start_batches(self) -> None:
        while (self._halves or len(self._line)) and (free := self._slots - len(self._running)):
            if self._halves:
                batch = self._halves.pop()
            else:
                # Free slots share what waits, if that is enough to be worth a pass each.
                share = max(self._cost.share, 1.01 * self._line.seconds / free)  # 1.01: rounding
                seconds = min(self._cost.batch, share)
                batch = self._line.next_batch(seconds, self._max_batch_tokens)
            began = self._clock()
            for entry in batch:
                if entry.job.started is None:
                    entry.job.started = began
                    self.queue_seconds.observe(began - entry.job.arrived)
            items, head = [entry.item for entry in batch], batch[0].job.head
            running = asyncio.ensure_future(self._run(items, head))
            self._running.add(running)
            running.add_done_callback(partial(self._ended, batch, began))

    def _ended(self, batch: list[Entry], began: float, ended: asyncio.Future[list[bytes]]) -> None:
        self._running.discard(ended)
        error = Unavailable("The computation was stopped.") if ended.cancelled() else None
        error = error or ended.exception()
        results = [] if error else ended.result()
        if not error and len(results) != len(batch):
            error = EmbeddingFailed(f"There were {len(results)} results of {len(batch)} texts.")
        if error is None:
            self._count(batch, self._clock() - began)
            for entry, result in zip(batch, results, strict=True):
                job = entry.job
                job.results[entry.index] = result
                job.missing -= 1
                if not job.missing and not job.done.done():
                    self._settle(job)
        else:
            self._failed(batch, error)
        self._start_batches()

    def _settle(self, job: Job) -> None:
        if job.record is not None and job.started is not None:
            now = self._clock()
            job.record.queue += job.started - job.arrived
            job.record.forward += now - job.started
            job.record.queued = time.perf_counter() - (now - job.arrived)
        job.done.set_result(job.results)

    def _left(self, job: Job, done: asyncio.Future[list[bytes]]) -> None:
        if done.cancelled():
            self._line.drop(job)

    def _count(self, batch: list[Entry], seconds: float) -> None:
        lengths = [len(entry.item) for entry in batch]
        tokens = sum(lengths)
        self.succeeded = self._clock()
        self.batches += 1
        self.texts += len(batch)
        self.tokens += tokens
        self.padding += self._line.padding(lengths)
        self.forward_seconds.observe(seconds)
        self.batch_texts.observe(len(batch))
        self.batch_tokens.observe(tokens)
        expected = self._cost.start + sum(map(self._cost.of, lengths))
        self._pace += (seconds / expected - self._pace) / 8

    def _failed(self, batch: list[Entry], error: BaseException) -> None:
        """Have the halves of a batch tried that failed, so that only the texts at fault fail."""
        self.failed = self._clock()
        if len(batch) > 1:
            middle = len(batch) // 2
            self._halves += [batch[middle:], batch[:middle]]
            return
        entry = batch[0]
        if not isinstance(error, RequestError):
            log.error("a text of %d tokens failed", len(entry.item), exc_info=error)
            error = EmbeddingFailed("The server had an error while processing your request.")
        self._line.drop(entry.job)
        _fail(entry.job, error)


def _fail(job: Job, error: BaseException) -> None:
    if not job.done.done():
        job.done.set_exception(error)
