"""Counts of values by their size, cheap enough to keep of every request.

Not prometheus-client's own, which takes a lock and walks its buckets for each value: these are
counted on the event loop alone, and read when somebody asks.
"""

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = tuple(
    each * scale for scale in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0) for each in (1.0, 2.0, 5.0)
)
"""Bounds for times, 100 microseconds to 50 seconds."""
SIZES = tuple(float(1 << power) for power in range(15))
"""Bounds for counts, 1 to 16384."""


class Histogram:
    """How many values were at most each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Values above the bound before and at most this one; the last, above all."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """0 without values."""
        count = self.count
        return self.sum / count if count else 0.0

    def quantile(self, share: float) -> float:
        """The value that this share of all are at most, to within a bucket; 0 without values.

        What is above all bounds counts as the last of them.
        """
        return quantile(self.bounds, self.counts, share)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """`Histogram.quantile` of counts, which may be the difference of two readings."""
    wanted = share * sum(counts)
    below, low = 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if count and below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below, low = below + count, high
    return low if any(counts) else 0.0
