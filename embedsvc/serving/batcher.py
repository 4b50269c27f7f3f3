"""The batcher of one model: it puts items in the queue, and runs batches made from it.

There is no timer: an item that finds a slot free goes at once, and items that arrive while all
slots are busy share the next batch. The batcher knows token counts, not models; of a request it has
the record, in which it notes what time was spent on what.
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
from embedsvc.serving.queue import Entry, Grid, Queue, Submission
from embedsvc.telemetry.histogram import SIZES, Histogram
from embedsvc.telemetry.record import current
from embedsvc.texts.item import Item

ROUNDING = 1.01
"""The share of a free slot is made a little larger, so that rounding leaves no item over."""
SMOOTHING = 8
"""The pace is an exponential average over about this many batches."""
log = logging.getLogger(__name__)


class Run(Protocol):
    """Computes a batch: the result of each item by one head. `Engine._run_batch` is what does."""

    def __call__(self, items: list[Item], head: str, /) -> Awaitable[list[bytes]]: ...


class Batcher:
    """Lives on the event loop. `run` computes elsewhere, in at most `slots` calls at a time.

    See `Ops.slots`: on a CPU, one for each core.
    """

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
        self._queue = Queue(cost, grid)
        self._running: set[asyncio.Future[list[bytes]]] = set()
        self._halves: list[list[Entry]] = []
        """Halves of batches that failed. Each is tried by itself, the last one first."""
        self._closed = False
        self.batches = 0
        self.texts = 0
        self.tokens = 0
        """Tokens of items that were computed."""
        self.padding = 0
        """Tokens that were computed besides, for padding."""
        self.queue_seconds = Histogram()
        """Of submissions, from `submit` until the first of their items went to the device."""
        self.forward_seconds = Histogram()
        """Of batches, from the queue to their results."""
        self.batch_texts = Histogram(SIZES)
        self.batch_tokens = Histogram(SIZES)
        self.succeeded = self.failed = -math.inf
        """When a batch last succeeded, and when one last failed, by the clock."""
        self._pace = 1.0
        """Moving average of how many times longer batches take than their cost predicts."""

    @property
    def waiting_tokens(self) -> int:
        return self._queue.tokens

    def submit(self, items: Sequence[Item], head: str) -> asyncio.Future[list[bytes]]:
        """Enqueue items. The future becomes their results by a head, in their order.

        Where it is cancelled, items that still wait leave the queue. Its exceptions are
        `Overloaded` where the queue is full, `Unavailable` when closing, and `EmbeddingFailed` if
        the model fails on one of the items.
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
        results = [b""] * len(items)
        submission = Submission(head, results, len(items), done, arrived, current.get())
        self._queue.add(submission, items, arrived)
        done.add_done_callback(partial(self._withdraw_if_cancelled, submission))
        # Not at once: whoever else arrives in this turn of the event loop shares the batch.
        loop.call_soon(self._start_batches)
        return done

    def check_room(self, tokens: int) -> None:
        """Raise `Overloaded` if so many tokens more do not fit. In an empty queue all fit."""
        if self._queue.tokens and self._queue.tokens + tokens > self._max_waiting_tokens:
            wait = math.ceil(self._queue.seconds * self._pace / self._slots)
            raise Overloaded(self._queue.tokens, self._max_waiting_tokens, min(max(wait, 1), 59))

    async def close(self) -> None:
        """Refuse what waits and what comes; return when the batches that run have ended."""
        self._closed = True
        for entry in self._queue.clear():
            _fail(entry.submission, Unavailable("The server is shutting down."))
        while self._running:
            await asyncio.wait(self._running)

    def _start_batches(self) -> None:
        while (self._halves or len(self._queue)) and (free := self._slots - len(self._running)):
            if self._halves:
                batch = self._halves.pop()
            else:
                # What waits is divided among the free slots, but not into shares that are less work
                # than is worth starting a pass for.
                share = max(self._cost.split_seconds, ROUNDING * self._queue.seconds / free)
                seconds = min(self._cost.batch_seconds, share)
                batch = self._queue.next_batch(seconds, self._max_batch_tokens)
            began = self._clock()
            for entry in batch:
                if entry.submission.started is None:
                    entry.submission.started = began
                    self.queue_seconds.observe(began - entry.submission.arrived)
            items, head = [entry.item for entry in batch], batch[0].submission.head
            running = asyncio.ensure_future(self._run(items, head))
            self._running.add(running)
            running.add_done_callback(partial(self._batch_ended, batch, began))

    def _batch_ended(
        self, batch: list[Entry], began: float, ended: asyncio.Future[list[bytes]]
    ) -> None:
        self._running.discard(ended)
        error = Unavailable("The computation was stopped.") if ended.cancelled() else None
        error = error or ended.exception()
        results = [] if error else ended.result()
        if not error and len(results) != len(batch):
            error = EmbeddingFailed(f"There were {len(results)} results of {len(batch)} texts.")
        if error is None:
            self._count(batch, self._clock() - began)
            for entry, result in zip(batch, results, strict=True):
                submission = entry.submission
                submission.results[entry.index] = result
                submission.missing -= 1
                if not submission.missing and not submission.done.done():
                    self._deliver(submission)
        else:
            self._retry_halves(batch, error)
        self._start_batches()

    def _deliver(self, submission: Submission) -> None:
        """Hand a submission its results, all of which are there, and time its request."""
        record = submission.record
        if record is not None and submission.started is not None:
            now = self._clock()
            record.queue += submission.started - submission.arrived
            record.forward += now - submission.started
            record.queued = time.perf_counter() - (now - submission.arrived)
        submission.done.set_result(submission.results)

    def _withdraw_if_cancelled(
        self, submission: Submission, done: asyncio.Future[list[bytes]]
    ) -> None:
        if done.cancelled():
            self._queue.withdraw(submission)

    def _count(self, batch: list[Entry], seconds: float) -> None:
        lengths = [len(entry.item) for entry in batch]
        tokens = sum(lengths)
        self.succeeded = self._clock()
        self.batches += 1
        self.texts += len(batch)
        self.tokens += tokens
        self.padding += self._queue.padding(lengths)
        self.forward_seconds.observe(seconds)
        self.batch_texts.observe(len(batch))
        self.batch_tokens.observe(tokens)
        expected = self._cost.start + sum(map(self._cost.of, lengths))
        self._pace += (seconds / expected - self._pace) / SMOOTHING

    def _retry_halves(self, batch: list[Entry], error: BaseException) -> None:
        """Have the halves of a failed batch tried, so that only the items at fault fail."""
        self.failed = self._clock()
        if len(batch) > 1:
            middle = len(batch) // 2
            self._halves += [batch[middle:], batch[:middle]]
            return
        entry = batch[0]
        if not isinstance(error, RequestError):
            log.error("a text of %d tokens failed", len(entry.item), exc_info=error)
            error = EmbeddingFailed("The server had an error while processing your request.")
        self._queue.withdraw(entry.submission)
        _fail(entry.submission, error)


def _fail(submission: Submission, error: BaseException) -> None:
    if not submission.done.done():
        submission.done.set_exception(error)
