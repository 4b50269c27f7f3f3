"""How many threads NumPy's products use.

A product on several threads waits for the slowest, so it gains much where the cores are idle and
loses more where they are not. So batches that run beside each other take one thread each, and a
batch that runs alone takes what has lately been fastest for its size.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import threadpoolctl

T = TypeVar("T")
RETRY = 50
"""After so many batches of a size the slower choice gets another chance."""


class Cores:
    """Runs functions on the calling threads, several at once."""

    def __init__(self, cores: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.cores = cores
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._speeds: dict[int, _Choice] = {}
        # Where NumPy is built on another library than OpenBLAS (Accelerate) nothing is set. What
        # is loaded is looked up once: it takes milliseconds.
        controller: Any = threadpoolctl.ThreadpoolController()
        self._blas: list[Any] = controller.select(internal_api="openblas").lib_controllers
        self._set(1)

    def run(self, function: Callable[[], T], tokens: int) -> T:
        """`function()`, which works on so many tokens; on one thread where that is not known."""
        with self._lock:
            self._running += 1
            alone = self._running == 1 and self.cores > 1 and tokens > 0
            choice = self._speeds.setdefault(tokens.bit_length(), _Choice(self.cores))
            threads = choice.next() if alone else 1
            self._set(threads)
        began = self._clock()
        try:
            return function()
        finally:
            taken = self._clock() - began
            with self._lock:
                self._running -= 1
                if alone:
                    choice.took(threads, taken / tokens)

    def _set(self, threads: int) -> None:
        for blas in self._blas:
            blas.set_num_threads(threads)


class _Choice:
    """One thread or all, by what each took lately."""

    def __init__(self, cores: int) -> None:
        self._taken = {1: 0.0, cores: 0.0}  # seconds per token; 0: not tried
        self._best = cores
        self._since = 0

    def next(self) -> int:
        untried = [threads for threads, taken in self._taken.items() if not taken]
        if untried:
            return untried[-1]
        self._since += 1
        if self._since % RETRY == 0:
            return next(threads for threads in self._taken if threads != self._best)
        return self._best

    def took(self, threads: int, seconds: float) -> None:
        before = self._taken[threads] or seconds
        self._taken[threads] = before + 0.3 * (seconds - before)
        if all(self._taken.values()):
            self._best = min(self._taken, key=lambda threads: self._taken[threads])
