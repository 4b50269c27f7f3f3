"""Histograms that are cheap enough to take a value of every request.

prometheus-client's own take a lock and walk through their buckets for each value. These are filled
on the event loop alone, and read when somebody asks.
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
    """Counts values by the bucket that they fall in, and adds them up."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """For each bound, the number of values that are at most it and above the bound before. The
        last number is of those above all bounds."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean of all values, 0 without values."""
        count = self.count
        return self.sum / count if count else 0.0

    def quantile(self, share: float) -> float:
        """See the function `quantile`."""
        return quantile(self.bounds, self.counts, share)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float:
    """The value that this share of all values does not exceed, exact to a bucket. 0 without values.

    `counts` are as in `Histogram`, or the difference of two readings of one. Values above all
    bounds count as the largest bound.

    >>> quantile([1.0, 2.0, 4.0], [0, 10, 10, 0], 0.75)
    3.0
    """
    target = share * sum(counts)
    below, low = 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if count and below + count >= target:
            return low + (high - low) * (target - below) / count
        below, low = below + count, high
    return low if any(counts) else 0.0
