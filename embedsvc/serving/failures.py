"""Models that failed to load, and how long requests wait until they are tried again."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

FIRST_SECONDS = 1.0
"""The pause after the second failure in a row. Each further failure doubles it. After the first
failure, which may be chance, there is none."""
MOST_SECONDS = 60.0
"""The longest pause."""
MOST_RETRY_AFTER = 59
"""The longest pause that a client is told. SDKs ignore longer ones or give up."""


class Failure(NamedTuple):
    times: int
    """How many failures in a row this is."""
    until: float
    """When the model may be tried again, by the clock."""


class Failures:
    """Failures by the ids of cards. Whoever loads a model on purpose, or reloads the cards, forgets
    them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, Failure] = {}

    def add(self, model: str) -> None:
        """Note that a model failed to load."""
        before = self._failures.get(model)
        times = before.times + 1 if before else 1
        pause = 0.0 if times == 1 else min(FIRST_SECONDS * 2.0 ** min(times - 2, 30), MOST_SECONDS)
        self._failures[model] = Failure(times, self._clock() + pause)

    def forget(self, model: str | None = None) -> None:
        """Let a model be tried again at once, or all models."""
        if model is None:
            self._failures.clear()
        else:
            self._failures.pop(model, None)

    def wait(self, model: str) -> float:
        """Seconds until a model may be tried again, 0 if it may now."""
        failure = self._failures.get(model)
        return max(failure.until - self._clock(), 0.0) if failure else 0.0

    def retry_after(self, model: str) -> str:
        """The same as the value of a Retry-After header, 1 to 59."""
        return str(min(max(math.ceil(self.wait(model)), 1), MOST_RETRY_AFTER))
