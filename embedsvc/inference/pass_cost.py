"""What a forward pass costs in time, learned from the device by a few passes at load.

A pass takes some time however small it is (weights are read, kernels started), some for each token,
and some for each pair of tokens within a text (attention).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedsvc.inference.turns import InTurn, at_once
from embedsvc.texts.item import TokenIds


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


def measure(
    encode: Callable[[Sequence[TokenIds]], object],
    max_tokens: int,
    max_batch_tokens: int,
    in_turn: InTurn = at_once,
) -> Cost:
    """The cost of `encode`, from passes that take a fraction of a second together.

    Passes grow until their texts show in the time they take: on a GPU, a thousand tokens may not.
    """
    short, long = min(16, max_tokens), min(256, max_tokens)
    shapes: list[tuple[int, int]] = []
    taken: list[float] = []

    def grow(texts: int, length: int) -> None:
        shapes.append((texts, length))
        taken.append(_seconds(encode, texts, length, in_turn))
        if taken[-1] <= 2 * taken[0] and 4 * texts * length <= max_batch_tokens:
            grow(4 * texts, length)

    grow(4, short)
    grow(1, long)
    work = np.array([(1.0, texts * length, texts * length**2) for texts, length in shapes])
    seconds = np.array(taken)
    fitted, *_ = np.linalg.lstsq(work / seconds[:, None], np.ones_like(seconds))
    # Noise, or a text limit too short to tell the three apart, must not make a cost negative.
    least = taken[0] * np.array([0.1, 1e-5, 1e-9])
    start, token, pair = np.maximum(fitted, least).tolist()
    return Cost(start, token, pair)


def _seconds(
    encode: Callable[[Sequence[TokenIds]], object], texts: int, length: int, in_turn: InTurn
) -> float:
    """What such a pass takes, at best: the first ones also prepare the device for its shape."""
    batch = [np.zeros(length, dtype=np.int32)] * texts

    def once() -> float:
        began = time.perf_counter()
        encode(batch)
        return time.perf_counter() - began

    taken: list[float] = []
    for most in (1.0, 0.5, 0.02, 0.02, 0.02):  # seconds spent so far that allow one more
        if sum(taken) > most:
            break
        taken.append(in_turn(once))
    return min(taken)
