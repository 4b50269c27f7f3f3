"""What a forward pass costs in time, learned from the device by a few passes at load.

A pass takes some time however small it is (weights are read, kernels started), some for each token,
and some for each pair of tokens within a text (attention).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds a pass takes; all three are positive."""

    start: float
    token: float
    pair: float

    def of(self, length: int) -> float:
        """Seconds that a text of that many tokens adds to a pass."""
        return length * (self.token + length * self.pair)

    @property
    def batch(self) -> float:
        """Seconds of work after which a larger pass would gain less than one part in twenty."""
        return 20 * self.start

    @property
    def share(self) -> float:
        """Seconds of work that are worth a pass of their own where one could serve all."""
        return 2 * self.start


def measure(encode: Callable[[Sequence[TokenIds]], object], max_tokens: int) -> Cost:
    """The cost of `encode`, from passes that take a fraction of a second together."""
    short = min(16, max_tokens)
    shapes = [(4, short), (16, short), (1, min(256, max_tokens))]
    taken: list[float] = []
    for texts, length in shapes:
        batch = [np.zeros(length, dtype=np.int32)] * texts
        best = float("inf")
        for _ in range(2):
            began = time.perf_counter()
            encode(batch)
            best = min(best, time.perf_counter() - began)
        taken.append(best)
    work = [(1.0, texts * length, texts * length**2) for texts, length in shapes]
    fitted, *_ = np.linalg.lstsq(np.array(work), np.array(taken))
    # Noise, or a text limit too short to tell the three apart, must not make a cost negative.
    least = taken[0] * np.array([0.1, 1e-3, 1e-9])
    start, token, pair = np.maximum(fitted, least).tolist()
    return Cost(start, token, pair)
