"""Where encoders run: one MLX thread, or one NumPy worker per core."""

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import threadpoolctl

from embedsvc.cards import Dtype
from embedsvc.errors import CardsError
from embedsvc.ops.base import Ops
from embedsvc.settings import BackendChoice

T = TypeVar("T")


class Device:
    """Threads that compute, and the operations they compute with."""

    def __init__(self, make_ops: Callable[[Dtype | None], Ops], workers: int) -> None:
        self.make_ops = make_ops
        """Operations in a dtype (None: the backend's own); to be called on the device."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="device")
        self._cores = _Cores(workers)
        self.ops = self._threads.submit(make_ops, None).result()

    async def run(self, function: Callable[[], T]) -> T:
        """`function()` on the device, in turn with what else runs there."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._cores.shared, function)

    async def answers(self, seconds: float) -> bool:
        """Whether the device does something trivial within so many seconds."""
        try:
            return await asyncio.wait_for(self.run(lambda: True), seconds)
        except TimeoutError:
            return False

    def close(self) -> None:
        """Let what runs finish, start nothing more."""
        self._threads.shutdown(cancel_futures=True)


def open_device(backend: BackendChoice) -> Device:
    """The device of a backend; `auto` is MLX where MLX has a GPU, else NumPy.

    Raises `CardsError` if MLX is asked for and not installed.
    """
    if backend == "mlx" and not _installed("mlx"):
        raise CardsError(
            "backend `mlx` is not installed; "
            "`pip install 'embedsvc[cuda]'` on NVIDIA, `pip install mlx` on a Mac"
        )
    if backend == "mlx" or (backend == "auto" and _gpu_likely() and _mlx_has_gpu()):
        from embedsvc.ops.mlx import MlxOps

        return Device(MlxOps, workers=1)
    from embedsvc.ops.numpy import NumpyOps, usable_cores

    return Device(lambda _: NumpyOps(), workers=usable_cores())


class _Cores:
    """Shares the cores: BLAS uses all of them for a batch that runs alone, one each when all run.

    NumPy's OpenBLAS reads its thread count at each product, so a batch under way adapts too. Where
    NumPy is built on another BLAS (Accelerate) there is nothing to set.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._lock = threading.Lock()
        self._running = 0
        # Reading what libraries are loaded takes milliseconds: once, not at each batch.
        controller: Any = threadpoolctl.ThreadpoolController()
        self._blas: list[Any] = controller.select(internal_api="openblas").lib_controllers

    def shared(self, function: Callable[[], T]) -> T:
        self._share(+1)
        try:
            return function()
        finally:
            self._share(-1)

    def _share(self, change: int) -> None:
        with self._lock:
            self._running += change
            for blas in self._blas:
                blas.set_num_threads(max(1, self._cores // max(1, self._running)))


def _gpu_likely() -> bool:
    """Whether it is worth importing MLX to ask it for a GPU."""
    return sys.platform == "darwin" or Path("/dev/nvidiactl").exists()


def _mlx_has_gpu() -> bool:
    if not _installed("mlx"):
        return False
    from embedsvc.ops.mlx import has_gpu

    return has_gpu()


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
