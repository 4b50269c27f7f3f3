"""The waiting line of one model: who stands in it, and which of them go next.

It knows token counts and what they cost, not models.
"""

import asyncio
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from embedsvc.cost import Cost
from embedsvc.telemetry.record import Record
from embedsvc.texts.tokens import Text

WINDOW = 1024
"""Entries at the head of the line that a batch is chosen from."""

Grid = Callable[[int, int], tuple[int, int]]
"""See `Ops.grid`."""


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one request."""

    vectors: list[bytes | None]  # float32, (D,) each
    missing: int
    done: asyncio.Future[NDArray[np.float32]]
    """Their vectors (n, D)."""
    arrived: float
    record: Record | None
    started: float | None = None
    """When the first of its texts went to the device."""


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
