"""How a batch uses the cores.

Batches that run beside each other take one core each. One that runs alone has its rows shared out
over idle cores, where that is faster: a part has to wait for the slowest, which other programs may
hold up. So it takes what has lately been fastest for its size.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
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
        self._cores = cores
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._choices: dict[int, _Choice] = {}
        self._batch = threading.local()
        self._helpers = ThreadPoolExecutor(max(1, cores - 1), thread_name_prefix="rows")
        # Cores are shared out here, so products take one each. Where NumPy is built on another
        # library than OpenBLAS (Accelerate) there is nothing to set.
        controller: Any = threadpoolctl.ThreadpoolController()
        self._blas: list[Any] = controller.select(internal_api="openblas").lib_controllers
        for blas in self._blas:
            blas.set_num_threads(1)

    @property
    def library(self) -> str:
        """What does the products, and the kind of processor it takes this one for."""
        names = [f", OpenBLAS for {blas.architecture}" for blas in self._blas]
        return "".join(names[:1])

    @property
    def width(self) -> int:
        """Cores that the batch on this thread may use."""
        return getattr(self._batch, "width", 1)

    def run(self, function: Callable[[], T], tokens: int) -> T:
        """`function()`, which works on so many tokens; on one core where that is not known."""
        with self._lock:
            self._running += 1
            alone = self._running == 1 and self._cores > 1 and tokens > 0
            choice = self._choices.setdefault(tokens.bit_length(), _Choice(self._cores))
            width = self._batch.width = choice.next() if alone else 1
        began = self._clock()
        try:
            return function()
        finally:
            taken = self._clock() - began
            with self._lock:
                self._running -= 1
                if alone:
                    choice.took(width, taken / tokens)

    def together(self, parts: Sequence[Callable[[], T]]) -> list[T]:
        """What the parts of a batch return; they run at once, the first on this thread."""
        others = [self._helpers.submit(part) for part in parts[1:]]
        try:
            first = parts[0]()
        finally:
            wait(others)
        return [first, *(other.result() for other in others)]


class _Choice:
    """All cores or one, by the median of what each took the last few times."""

    def __init__(self, cores: int) -> None:
        self._taken = {width: deque[float](maxlen=LATELY) for width in (cores, 1)}
        self._count = 0

    def next(self) -> int:
        for width, taken in self._taken.items():
            if len(taken) <= LATELY // 2:
                return width
        best, other = sorted(self._taken, key=lambda width: median(self._taken[width]))
        self._count += 1
        return best if self._count % RETRY else other

    def took(self, width: int, seconds: float) -> None:
        self._taken[width].append(seconds)
