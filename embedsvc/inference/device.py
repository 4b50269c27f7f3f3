"""The threads that encoders run on: the one of MLX, or one for each core of a CPU."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.errors import CardsError
from embedsvc.inference.gpu import gpu_likely, how_to_install
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.plan import choose_dtype
from embedsvc.inference.turns import Stepwise, Turns, on_this_thread
from embedsvc.settings import BackendChoice

S = TypeVar("S")
T = TypeVar("T")
LOAD_STEP_SECONDS = 60.0
"""How long one step of loading a model is expected to take: converting a tensor, compiling
kernels."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What one thread of the device is doing."""

    thread: int
    expected: float
    """Seconds that it is expected to take."""


class Device:
    """Threads that compute, and the operations they compute with."""

    def __init__(
        self,
        make_ops: Callable[[Dtype | None], Ops],
        workers: int,
        *,
        one_thread: bool = False,
        leave: Callable[[], None] | None = None,
        dtype: Dtype | None = None,
    ) -> None:
        """`one_thread`: everything that touches the device, loading included, has to run on its
        thread, and last of all `leave()`. `dtype`: what cards that ask for none are computed in, if
        the backend can do that."""
        self.make_ops = make_ops
        """Makes operations in a dtype (None: the backend's own). With `one_thread` it has to be
        called on that thread."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="device")
        self._last: Callable[[], object]
        """What was queued last for the threads of the device."""
        self._collecting = ThreadPoolExecutor(2, thread_name_prefix="results")
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._one_thread = one_thread
        self._leave = leave
        self._working: dict[int, Work] = {}  # by thread; each changes its own alone
        self.ops = self._submit(lambda: make_ops(None)).result()
        self._asked: Dtype | None = dtype if dtype in self.ops.dtypes else None
        if self._asked is not None:
            self.ops = self._submit(lambda: make_ops(dtype)).result()

    def dtype(self, checkpoint: Checkpoint) -> Dtype:
        """The dtype in which a checkpoint is computed. Raises `CheckpointError`."""
        return choose_dtype(checkpoint, self.ops, self._asked)

    @property
    def working(self) -> list[Work]:
        """What runs now. It may be read from any thread."""
        return list(self._working.values())

    def run(self, function: Callable[[], T], seconds: float = 0.0) -> asyncio.Future[T]:
        """Run `function` on a thread of the device, after the work already queued there.

        `seconds` is how long it is expected to take; the watchdog measures against it.
        """
        return asyncio.wrap_future(self._submit(self._noted(function, seconds)))

    async def run_pipelined(
        self, begin: Callable[[], S], collect: Callable[[S], T], seconds: float = 0.0
    ) -> T:
        """Do as `run` does for `collect(begin())`, where `collect` waits for what `begin` began.

        If more work is queued for the device's thread by then, another thread collects, so that the
        device can begin that. Else the thread does it itself, which is sooner: what comes alone is
        handed to that thread and back, and to no other.
        """

        def work() -> Future[T]:
            collecting = partial(collect, begin())
            if self._last is not noted:
                return self._collecting.submit(self._noted(collecting, seconds))
            collected: Future[T] = Future()
            collected.set_result(collecting())
            return collected

        noted = self._noted(work, seconds)
        collected = await asyncio.wrap_future(self._submit(noted))
        return collected.result() if collected.done() else await asyncio.wrap_future(collected)

    async def load(self, dtype: Dtype, function: Callable[[Ops, Stepwise], T]) -> T:
        """Run `function(ops, stepwise)` on a thread for loading, which batches do not wait for.

        `ops` are operations in that dtype. Where all work has to be done on the device's one
        thread, what the function does with them goes through `stepwise`.
        """

        def work() -> T:
            if not self._one_thread:
                return function(self.make_ops(dtype), on_this_thread)
            ops = self._take_turn(lambda: self.make_ops(dtype))
            return function(ops, Turns(self._take_turn))

        return await asyncio.get_running_loop().run_in_executor(self._loading, work)

    def _take_turn(self, work: Callable[[], T]) -> T:
        """Run one step of loading on the device, after the work already queued there."""
        return self._submit(self._noted(work, LOAD_STEP_SECONDS)).result()

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue work for the threads of the device."""
        self._last = work
        return self._threads.submit(work)

    def _noted(self, function: Callable[[], T], seconds: float) -> Callable[[], T]:
        """The function, listed in `working` while it runs."""

        def work() -> T:
            thread = threading.get_ident()
            self._working[thread] = Work(thread, seconds)
            try:
                return function()
            finally:
                del self._working[thread]

        return work

    def close(self) -> None:
        """Start nothing more, and return when what runs has ended."""
        self._loading.shutdown(cancel_futures=True)
        if self._leave is not None:
            self._submit(self._leave).result()
        self._threads.shutdown(cancel_futures=True)
        self._collecting.shutdown()


def open_device(
    backend: BackendChoice, cores: int | None = None, dtype: Dtype | None = None
) -> Device:
    """The device of a backend. `auto` is MLX where it has a GPU, else the kernels in C if they were
    built, else NumPy. `cores` is how many cores of a CPU to use; None: all. `dtype` is what cards
    that ask for none are computed in, if the backend can do that.

    Raises `CardsError` if a backend is asked for that is not there, or MLX is there for a GPU and
    cannot be loaded.
    """
    if backend == "mlx" or (backend == "auto" and gpu_likely()):
        try:
            from embedsvc.inference.ops.mlx import MlxOps, has_gpu
            from embedsvc.inference.ops.mlx.compiling import leave_thread
        except ImportError as error:
            raise CardsError(
                f"backend `mlx` cannot be loaded: {error}; what helps: {how_to_install()}; "
                "`--backend numpy` does without"
            ) from None
        if backend == "mlx" or has_gpu():
            return Device(MlxOps, workers=1, one_thread=True, leave=leave_thread, dtype=dtype)

    @cache
    def make_ops(dtype: Dtype | None) -> Ops:
        return _native_ops(backend, cores, dtype) or NumpyOps(cores)

    return Device(make_ops, workers=make_ops(None).slots, dtype=dtype)


def _native_ops(backend: BackendChoice, cores: int | None, dtype: Dtype | None) -> NumpyOps | None:
    """The operations by the kernels in C, if the choice allows them and they were built."""
    if backend == "numpy":
        return None
    from embedsvc.inference.ops.native import NativeOps, library

    if library.built():
        try:
            return NativeOps(cores, dtype=dtype)
        except OSError as error:
            raise CardsError(f"backend `native`: {error}") from None
    if backend == "native":
        raise CardsError(
            "backend `native` was not built; install a C compiler (`apt-get install gcc "
            "libc6-dev`, `xcode-select --install`) and then embedsvc again"
        )
    return None
