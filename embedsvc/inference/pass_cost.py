"""What a forward pass costs in time, learned from the device by a few passes at load.

A pass takes some time however small it is (weights are read, kernels started), some for each token,
and some for each pair of tokens within a text (attention).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

UNNOTICED_SECONDS = 0.03
"""A pass starts sooner than the next one is handed to a thread, which is no part of what a pass
costs and may find a processor's caches cold. So passes that end within this time are joined."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds a pass takes; all three are positive."""

    start: float
    """However small the pass is."""
    token: float
    """For each token."""
    pair: float
    """For each pair of tokens of one text."""

    def of(self, length: int) -> float:
        """Seconds that a text of that many tokens adds to a pass.

        >>> Cost(start=4e-3, token=2e-4, pair=1e-7).of(100)
        0.021
        """
        return length * (self.token + length * self.pair)

    @property
    def batch_seconds(self) -> float:
        """Seconds of work after which a larger pass would gain less than one part in twenty; or
        more, as long as a text that comes meanwhile waits for no longer than anybody notices."""
        return max(20 * self.start, UNNOTICED_SECONDS)

    @property
    def split_seconds(self) -> float:
        """Seconds of work below which it is not split into several passes that run at once."""
        return 2 * self.start


class PassTimer(Protocol):
    """Runs a pass over texts of these numbers of tokens; returns the seconds that it took."""

    def __call__(self, lengths: Sequence[int], /) -> float: ...


LEAST_PAIR = 1e-5
"""The least that a pair costs by what a token does: in a layer of width D, a pair takes 2 D
multiplications of attention, and a token some 12 D² of products."""
ALLOWED = (1.0, 0.01, 0.01, 0.01, 0.01)
ALLOWED_PREPARED = (1.0, 0.5, 0.02, 0.02, 0.02)
"""How many seconds the passes of one shape may have taken so far, for each one more of them; where
the first of each shape prepares the device for it, the second is the first that counts."""


def measure(
    seconds: PassTimer, max_tokens: int, max_batch_tokens: int, *, prepares: bool = False
) -> Cost:
    """The cost of a pass, from passes that take a fraction of a second together.

    Passes grow until their texts show in the time they take: on a GPU, a thousand tokens may not.
    `prepares`: the first pass of a shape prepares the device for it.
    """
    short, long = min(16, max_tokens), min(256, max_tokens)
    shapes: list[tuple[int, int]] = []
    measured: list[float] = []
    for texts, length in ((4 if prepares else 1, short), (1, long)):
        while True:
            shapes.append((texts, length))
            measured.append(_least_seconds(seconds, texts, length, prepares=prepares))
            if measured[-1] > 2 * measured[0] or 4 * texts * length > max_batch_tokens:
                break
            texts *= 4
    work = np.array([(1.0, texts * length, texts * length**2) for texts, length in shapes])
    times = np.array(measured)
    # Least squares of relative errors, so that short passes count as much as long ones.
    fitted, *_ = np.linalg.lstsq(work / times[:, None], np.ones_like(times))
    # Noise, or a text limit too short to tell the three apart, must not make a cost negative.
    start, token = np.maximum(fitted[:2], measured[0] * np.array([0.1, 1e-5])).tolist()
    return Cost(start, token, max(float(fitted[2]), LEAST_PAIR * token))


def _least_seconds(seconds: PassTimer, texts: int, length: int, *, prepares: bool) -> float:
    """The shortest time that such a pass took.

    It is run up to five times, fewer if the times so far add up to too much.
    """
    measured: list[float] = []
    for most in ALLOWED_PREPARED if prepares else ALLOWED:
        if sum(measured) > most:
            break
        measured.append(seconds([length] * texts))
    return min(measured)
