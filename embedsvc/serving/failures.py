"""Models that did not load, and how long requests have to wait until it is tried again."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

FIRST_SECONDS = 1.0
"""After the second failure in a row; after each further one, twice as long. The first time might
have been by chance."""
MOST_SECONDS = 60.0
MOST_SAID = 59
"""Seconds that a client is told to wait: SDKs ignore or give up on longer ones."""


class Failure(NamedTuple):
    times: int
    """In a row."""
    until: float
    """When it may be tried again, by the clock."""


class Failures:
    """By the ids of cards. Who loads a model on purpose, or has the cards read anew, forgets it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, Failure] = {}

    def add(self, model: str) -> None:
        """Note that a model did not load."""
        before = self._failures.get(model)
        times = before.times + 1 if before else 1
        pause = 0.0 if times == 1 else min(FIRST_SECONDS * 2.0 ** min(times - 2, 30), MOST_SECONDS)
        self._failures[model] = Failure(times, self._clock() + pause)

    def forget(self, model: str | None = None) -> None:
        """Let a model be tried again at once, or all."""
        if model is None:
            self._failures.clear()
        else:
            self._failures.pop(model, None)

    def wait(self, model: str) -> float:
        """Seconds until it may be tried again; 0 if it may."""
        failure = self._failures.get(model)
        return max(failure.until - self._clock(), 0.0) if failure else 0.0

    def retry_after(self, model: str) -> str:
        """The same, as a header says it."""
        return str(min(max(math.ceil(self.wait(model)), 1), MOST_SAID))
