"""How many threads NumPy's products use.

A product on several threads waits for the slowest, so it gains much where the cores are idle and
loses more where they are not. So batches that run beside each other take one thread each, and a
batch that runs alone takes what has lately been fastest for its size.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any, TypeVar

import threadpoolctl

T = TypeVar("T")
LATELY = 5
"""Batches of a size and a choice that are remembered."""
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

    @property
    def library(self) -> str:
        """What does the products, and the kind of processor it takes this one for."""
        names = [f", OpenBLAS for {blas.architecture}" for blas in self._blas]
        return "".join(names[:1])

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
    """One thread or all, by the median of what each took the last few times."""

    def __init__(self, cores: int) -> None:
        self._taken = {threads: deque[float](maxlen=LATELY) for threads in (cores, 1)}
        self._count = 0

    def next(self) -> int:
        for threads, taken in self._taken.items():
            if len(taken) <= LATELY // 2:
                return threads
        best, other = sorted(self._taken, key=lambda threads: median(self._taken[threads]))
        self._count += 1
        return best if self._count % RETRY else other

    def took(self, threads: int, seconds: float) -> None:
        self._taken[threads].append(seconds)
