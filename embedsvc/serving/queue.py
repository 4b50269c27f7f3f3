"""The waiting line of one model: who stands in it, and which of them go next.

It knows token counts and what they cost, not models.
"""

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from embedsvc.inference.pass_cost import Cost
from embedsvc.telemetry.record import Record
from embedsvc.texts.item import Item

WINDOW = 1024
"""Entries at the head of the line that a batch is chosen from."""
FEW = 64
"""Texts that find their places one by one sooner than the line is put in order anew."""
DUE = attrgetter("due")

Grid = Callable[[int, int], tuple[int, int]]
"""See `Ops.grid`."""


@dataclass(slots=True, eq=False)
class Job:
    """The items of one request."""

    head: str
    """What is wanted of them; items of one batch want the same."""
    results: list[bytes]
    missing: int
    done: asyncio.Future[list[bytes]]
    """Their results."""
    arrived: float
    record: Record | None
    started: float | None = None
    """When the first of its texts went to the device."""
    waiting: int = 0
    """Of its texts, those in the line."""
    tokens: int = 0
    seconds: float = 0.0
    """Of those."""
    left: bool = False
    """Whether they are not wanted any more."""


@dataclass(slots=True, eq=False)
class Entry:
    """One item in the line."""

    item: Item
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
    tokens: int = 0
    seconds: float = 0.0
    """Of work, without what each pass takes to start."""
    _entries: list[Entry] = field(default_factory=list[Entry])
    _left: int = 0
    """How many of them are of jobs that left."""

    def __len__(self) -> int:
        """Texts that wait."""
        return len(self._entries) - self._left

    @property
    def entries(self) -> list[Entry]:
        """Who waits, in order."""
        return [entry for entry in self._entries if not entry.job.left]

    def add(self, job: Job, items: Sequence[Item], due: float) -> None:
        """The items of a job that comes at `due`; each is due when those before it were served."""
        entries: list[Entry] = []
        for index, item in enumerate(items):
            entries.append(Entry(item, due, job, index))
            job.tokens += len(item)
            seconds = self.cost.of(len(item))
            job.seconds += seconds
            due += seconds
        job.waiting += len(entries)
        self.tokens += job.tokens
        self.seconds += job.seconds
        if len(entries) <= FEW:
            for entry in entries:
                insort(self._entries, entry, key=DUE)
        else:  # many would move all that is behind them, each by one
            first = bisect_right(self._entries, entries[0].due, key=DUE)
            stop = bisect_right(self._entries, entries[-1].due, key=DUE)
            among = self._entries[first:stop]
            self._entries[first:stop] = sorted([*among, *entries], key=DUE)

    def drop(self, job: Job) -> None:
        """Take out what is left of a job: at once in effect, and in memory before long."""
        if job.left:
            return
        job.left = True
        self._left += job.waiting
        self._less(job.tokens, job.seconds)
        if 2 * self._left > len(self._entries):
            self._entries = self.entries
            self._left = 0

    def clear(self) -> list[Entry]:
        """Take all out."""
        entries, self._entries, self._left = self.entries, [], 0
        self.tokens, self.seconds = 0, 0.0
        return entries

    def next_batch(self, max_seconds: float, max_tokens: int) -> list[Entry]:
        """Take out the first entry, and those of the same head that are nearest to it in length.

        The batch is work for `max_seconds` and has `max_tokens`, padding included, unless the first
        entry alone is more; a text is padded, or makes others be padded, only where that costs less
        than a pass of its own.
        """
        window = self._window()
        first = window[0]
        wanted = len(first.item)
        alike = (entry for entry in window if entry.job.head == first.job.head)
        # Stable: ties stay in order.
        near = sorted(alike, key=lambda entry: abs(len(entry.item) - wanted))
        batch = [first]
        longest, seconds, tokens = wanted, self._alone(wanted), wanted
        for entry in near[1:]:
            length = len(entry.item)
            count, widest, own = len(batch) + 1, max(longest, length), self._alone(length)
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
        batch = batch[: self._filled(len(batch), longest)]
        self._take(batch, window)
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

    def _window(self) -> list[Entry]:
        """The first of those who wait, at the very beginning of the entries."""
        seen = min(WINDOW, len(self._entries))
        window = self._entries[:seen]
        if self._left:
            rest = islice(self._entries, seen, None)
            window = [entry for entry in window if not entry.job.left]
            while len(window) < WINDOW and (entry := next(rest, None)) is not None:
                seen += 1
                if not entry.job.left:
                    window.append(entry)
            self._left -= seen - len(window)
            self._entries[:seen] = window
        return window

    def _take(self, taken: list[Entry], window: list[Entry]) -> None:
        """Take out entries that are in the window."""
        gone = set(map(id, taken))
        self._entries[: len(window)] = [entry for entry in window if id(entry) not in gone]
        for entry in taken:
            job, tokens = entry.job, len(entry.item)
            seconds = self.cost.of(tokens)
            job.waiting -= 1
            job.tokens -= tokens
            job.seconds -= seconds
            self._less(tokens, seconds)

    def _less(self, tokens: int, seconds: float) -> None:
        self.tokens -= tokens
        # Of an empty line, not what rounding left.
        self.seconds = self.seconds - seconds if len(self) else 0.0
