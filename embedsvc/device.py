"""Where encoders run: one MLX thread, or a worker for each core."""

import asyncio
import ctypes
import importlib.util
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from embedsvc.cards import Dtype
from embedsvc.errors import CardsError
from embedsvc.ops.base import Ops
from embedsvc.ops.numpy import NumpyOps
from embedsvc.settings import BackendChoice

T = TypeVar("T")
log = logging.getLogger(__name__)


class Device:
    """Threads that compute, and the operations they compute with."""

    def __init__(self, make_ops: Callable[[Dtype | None], Ops], workers: int) -> None:
        self.make_ops = make_ops
        """Operations in a dtype (None: the backend's own); to be called on the device."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="device")
        self._waiting = ThreadPoolExecutor(2, thread_name_prefix="results")
        self.ops = self._threads.submit(make_ops, None).result()

    async def run(self, function: Callable[[], T]) -> T:
        """`function()` on the device, in turn with what else runs there."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def wait(self, function: Callable[[], T]) -> T:
        """`function()`, which waits for what the device was told to do, off the device."""
        return await asyncio.get_running_loop().run_in_executor(self._waiting, function)

    async def answers(self, seconds: float) -> bool:
        """Whether the device does something trivial within so many seconds."""
        try:
            return await asyncio.wait_for(self.run(lambda: True), seconds)
        except TimeoutError:
            return False

    def close(self) -> None:
        """Let what runs finish, start nothing more."""
        self._threads.shutdown(cancel_futures=True)
        self._waiting.shutdown()


def open_device(backend: BackendChoice, cores: int | None = None) -> Device:
    """The device of a backend; `auto` is MLX where it has a GPU, else the kernels in C if they were
    built, else NumPy. `cores` is how many of a CPU's to use, None for all.

    Raises `CardsError` if a backend is asked for that is not there, or MLX is there for a GPU and
    cannot be loaded.
    """
    if backend == "mlx" or (backend == "auto" and _gpu_likely()):
        try:
            from embedsvc.ops.mlx import MlxOps, has_gpu
        except ImportError as error:
            raise CardsError(
                f"backend `mlx` cannot be loaded: {error}; it is `pip install 'embedsvc[cuda]'` on "
                "NVIDIA, `pip install mlx` on a Mac; `--backend numpy` does without"
            ) from None
        if backend == "mlx" or has_gpu():
            return Device(MlxOps, workers=1)
        log.warning("MLX finds no GPU, though there is a driver for one; computing without")
    ops = _native_ops(backend, cores) or NumpyOps(cores)
    return Device(lambda _: ops, workers=ops.slots)


def _native_ops(backend: BackendChoice, cores: int | None) -> NumpyOps | None:
    """The kernels in C, if they are wanted and there."""
    if backend == "numpy":
        return None
    from embedsvc.ops.native import NativeOps, library

    if library.built():
        try:
            return NativeOps(cores)
        except OSError as error:
            raise CardsError(f"backend `native`: {error}") from None
    if backend == "native":
        raise CardsError(
            "backend `native` was not built; install a C compiler (`apt-get install gcc "
            "libc6-dev`, `xcode-select --install`) and then embedsvc again"
        )
    return None


def _gpu_likely() -> bool:
    """Whether MLX is installed, and there is a Mac's GPU or NVIDIA's driver."""
    if importlib.util.find_spec("mlx") is None:
        return False
    return sys.platform == "darwin" or _loads("libcuda.so.1")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
