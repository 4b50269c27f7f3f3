"""The queue of one model: items that wait for the device, and which of them make the next batch.

The queue knows how many tokens items have and what those cost, not what a model is.
"""

import asyncio
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Protocol

from embedsvc.inference.pass_cost import Cost
from embedsvc.telemetry.record import Record
from embedsvc.texts.item import Item

WINDOW = 1024
"""A batch is chosen from this many entries at the head of the queue."""
FEW = 64
"""Up to this many new entries are inserted one by one; more are merged in by one sort."""
DUE = attrgetter("due")


class Grid(Protocol):
    """The shape that a padded pass has: see `Ops.grid`."""

    def __call__(self, texts: int, longest: int, /) -> tuple[int, int]:
        """How many texts of what length are computed for `texts` of which the longest is given."""
        ...


@dataclass(slots=True, eq=False)
class Submission:
    """The items of one call to `Batcher.submit`."""

    head: str
    """The head that computes the results. All items of a batch have the same."""
    results: list[bytes]
    missing: int
    """How many of the results are not there yet."""
    done: asyncio.Future[list[bytes]]
    """Becomes `results`."""
    arrived: float
    record: Record | None
    """The request that the items belong to, if they belong to one."""
    started: float | None = None
    """When the first of its items went to the device."""
    waiting: int = 0
    """How many of its items are in the queue."""
    tokens: int = 0
    """Of the items in the queue."""
    seconds: float = 0.0
    """What the items in the queue cost."""
    withdrawn: bool = False
    """Whether nobody wants the results any more."""


@dataclass(slots=True, eq=False)
class Entry:
    """One item in the queue."""

    item: Item
    due: float
    """When the item would be served if its submission had the device to itself. The queue is in
    this order, so the last items of a long submission stand behind a short one that comes later,
    and nothing waits for ever."""
    submission: Submission
    index: int
    """The item's place among its submission's results."""


@dataclass(slots=True)
class Queue:
    """Entries in the order in which they are due."""

    cost: Cost
    grid: Grid | None
    """The shape that a pass is padded to; None where nothing is padded."""
    tokens: int = 0
    seconds: float = 0.0
    """What the items cost, without what each pass costs to start."""
    _entries: list[Entry] = field(default_factory=list[Entry])
    _withdrawn: int = 0
    """How many of `_entries` belong to submissions that were withdrawn."""

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._entries) - self._withdrawn

    @property
    def entries(self) -> list[Entry]:
        """The entries that wait, in order."""
        return [entry for entry in self._entries if not entry.submission.withdrawn]

    def add(self, submission: Submission, items: Sequence[Item], due: float) -> None:
        """Add the items of a submission that arrives at `due`.

        Each item is due when those before it would have been served.
        """
        entries: list[Entry] = []
        for index, item in enumerate(items):
            entries.append(Entry(item, due, submission, index))
            submission.tokens += len(item)
            seconds = self.cost.of(len(item))
            submission.seconds += seconds
            due += seconds
        submission.waiting += len(entries)
        self.tokens += submission.tokens
        self.seconds += submission.seconds
        if len(entries) <= FEW:
            for entry in entries:
                insort(self._entries, entry, key=DUE)
        else:  # each insertion would move all entries behind it by one
            first = bisect_right(self._entries, entries[0].due, key=DUE)
            stop = bisect_right(self._entries, entries[-1].due, key=DUE)
            among = self._entries[first:stop]
            self._entries[first:stop] = sorted([*among, *entries], key=DUE)

    def withdraw(self, submission: Submission) -> None:
        """Take out the items of a submission that still wait.

        They are skipped from now on, and removed from memory once they are half of all entries.
        """
        if submission.withdrawn:
            return
        submission.withdrawn = True
        self._withdrawn += submission.waiting
        self._subtract(submission.tokens, submission.seconds)
        if 2 * self._withdrawn > len(self._entries):
            self._entries = self.entries
            self._withdrawn = 0

    def clear(self) -> list[Entry]:
        """Take out all entries."""
        entries, self._entries, self._withdrawn = self.entries, [], 0
        self.tokens, self.seconds = 0, 0.0
        return entries

    def next_batch(self, max_seconds: float, max_tokens: int) -> list[Entry]:
        """Take out the first entry, and those of the same head that are nearest to it in length.

        The batch costs at most `max_seconds` and has at most `max_tokens`, padding included, unless
        the first entry alone is more. An item is padded, or makes others be padded, only where that
        costs less than a pass of its own.
        """
        window = self._window()
        first = window[0]
        target = len(first.item)
        same_head = (e for e in window if e.submission.head == first.submission.head)
        # The sort is stable: items of the same distance stay in the order of the queue.
        nearest = sorted(same_head, key=lambda entry: abs(len(entry.item) - target))
        batch = [first]
        longest, seconds, tokens = target, self._cost_alone(target), target
        for entry in nearest[1:]:
            length = len(entry.item)
            count, widest, own = len(batch) + 1, max(longest, length), self._cost_alone(length)
            total, computed = seconds + own, tokens + length
            if self.grid is not None:
                rows, columns = self.grid(count, widest)
                total, computed = count * self.cost.of(columns), rows * columns
            if total > max_seconds or computed > max_tokens:
                break
            if total - seconds > own + self.cost.start:
                continue
            batch.append(entry)
            longest, seconds, tokens = widest, total, computed
        batch = batch[: self._without_costly_rows(len(batch), longest)]
        self._take(batch, window)
        return batch

    def _cost_alone(self, length: int) -> float:
        """Seconds that an item adds to a pass where no other is longer."""
        return self.cost.of(length if self.grid is None else self.grid(1, length)[1])

    def _without_costly_rows(self, count: int, longest: int) -> int:
        """How many of `count` items to take.

        The grid may add empty rows. Where those cost more than another pass, fewer items are taken,
        so many that the grid adds none.
        """
        if self.grid is None:
            return count
        rows, length = self.grid(count, longest)
        if (rows - count) * self.cost.of(length) <= self.cost.start:
            return count
        return next(n for n in range(count, 0, -1) if self.grid(n, longest)[0] == n)

    def padding(self, lengths: Sequence[int]) -> int:
        """How many tokens a batch of items of these lengths computes in vain."""
        if self.grid is None:
            return 0
        rows, length = self.grid(len(lengths), max(lengths))
        return rows * length - sum(lengths)

    def _window(self) -> list[Entry]:
        """The first `WINDOW` entries that wait, moved to the very beginning of `_entries`."""
        seen = min(WINDOW, len(self._entries))
        window = self._entries[:seen]
        if self._withdrawn:
            rest = islice(self._entries, seen, None)
            window = [entry for entry in window if not entry.submission.withdrawn]
            while len(window) < WINDOW and (entry := next(rest, None)) is not None:
                seen += 1
                if not entry.submission.withdrawn:
                    window.append(entry)
            self._withdrawn -= seen - len(window)
            self._entries[:seen] = window
        return window

    def _take(self, batch: list[Entry], window: list[Entry]) -> None:
        """Take out entries of the window."""
        taken = set(map(id, batch))
        self._entries[: len(window)] = [entry for entry in window if id(entry) not in taken]
        for entry in batch:
            submission, tokens = entry.submission, len(entry.item)
            seconds = self.cost.of(tokens)
            submission.waiting -= 1
            submission.tokens -= tokens
            submission.seconds -= seconds
            self._subtract(tokens, seconds)

    def _subtract(self, tokens: int, seconds: float) -> None:
        self.tokens -= tokens
        # An empty queue costs nothing, not what rounding has left.
        self.seconds = self.seconds - seconds if len(self) else 0.0
