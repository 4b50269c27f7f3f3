"""The operations in C, for machines without a GPU where the kernels were built.

A whole pass is one call, on one core and without the interpreter; a pass that has the machine to
itself is shared out over all cores.
"""

import platform
import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.base import Batch, Experts, Linear, Ops
from embedsvc.inference.ops.memory import MemoryUse, tune_allocator
from embedsvc.inference.ops.native import library
from embedsvc.inference.ops.native.library import Kernels
from embedsvc.inference.ops.native.program import Program
from embedsvc.inference.ops.native.tape import (
    IDS,
    LAYOUT,
    POSITIONS,
    TYPES,
    NotOnTape,
    Tape,
    Traced,
    Value,
    Weight,
)
from embedsvc.inference.ops.numpy import Floats, NumpyOps

WEIGHT_BYTES = 512 << 10
"""Of a weight that is large enough for memory of its own."""


class NativeOps(NumpyOps):
    """See `Ops`. A pass with an operation that has no kernel runs on NumPy, save its products."""

    name: Literal["native", "numpy"] = "native"

    def __init__(self, cores: int | None = None, kernels: Kernels | None = None) -> None:
        """On so many cores (None: all), with some kernels (None: the best here)."""
        super().__init__(cores)
        self._library = library.load()
        self._kernels = kernels or library.kernels(self._library)[0]
        self._library.embedsvc_threads(self.slots)
        plural = "s" if self.slots > 1 else ""
        self.device = (
            f"{platform.machine()} CPU, {self.slots} core{plural}, {self._kernels.name} kernels"
        )

    def _set_allocator(self) -> None:
        # The kernels keep what a pass needs; weights go back as they came when a model is unloaded.
        tune_allocator(trim_threshold=WEIGHT_BYTES, mmap_threshold=WEIGHT_BYTES)

    def memory_use(self) -> MemoryUse:
        use = super().memory_use()
        kept = self._library.embedsvc_kept()  # by threads that compute nothing now
        return MemoryUse(max(0, use.active - kept), kept, use.peak)

    def release(self) -> None:
        self._library.embedsvc_release()
        super().release()

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        weight = expand(weight)
        outputs = len(weight)
        (panels,) = self._panels(weight[None])
        if bias is not None:
            padded = np.zeros(len(panels) * self._kernels.panel, dtype=np.float32)
            padded[:outputs] = bias
            bias = padded
        return Linear(Weight(panels, outputs), bias)

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        return Experts(self._panels(up), self._panels(down))

    def _panels(self, weights: NDArray[Any]) -> Floats:
        """Weights (n, out, in) as (n, panels, in, columns of a panel)."""
        count, outputs, inputs = weights.shape
        width = self._kernels.panel
        panels = _aligned(count, -(-outputs // width), inputs, width)
        for weight, to in zip(weights, panels, strict=True):
            for number, panel in enumerate(to):
                columns = weight[number * width : (number + 1) * width]
                panel[:, : len(columns)] = columns.T
        return panels

    def linear(self, x: Floats, layer: Linear) -> Floats:
        return self._once(lambda tape, given: tape.linear(given[0], layer), x)

    def experts(self, x: Floats, scores: Floats, chosen: int, layer: Experts) -> Floats:
        return self._once(
            lambda tape, given: tape.experts(given[0], given[1], chosen, layer), x, scores
        )

    def _once(self, operation: Callable[[Tape, list[Value]], Value], *inputs: Floats) -> Floats:
        """One operation by itself; its inputs come in as rows of tables."""
        tables = [np.require(x, np.float32, ["C", "A"]) for x in inputs]

        def function(tape: Tape, batch: Batch) -> Value:
            return operation(tape, [tape.embedding(table, batch.ids) for table in tables])

        rows = np.arange(len(inputs[0]), dtype=np.int32)
        return self._program(function).run(self.batch([rows]))

    def _program(self, function: Callable[[Any, Batch], Any]) -> Program:
        return Program(self._library, self._kernels, _traced(function))

    def compiled(self, function: Callable[[Ops, Batch], Floats]) -> Callable[[Batch], Floats]:
        lock = threading.Lock()
        made: Callable[[Batch], Floats] | None = None

        def run(batch: Batch) -> Floats:
            nonlocal made
            with lock:
                if made is None:
                    try:
                        made = self._program(function).run
                    except NotOnTape:
                        made = super(NativeOps, self).compiled(function)
            return made(batch)

        return run


def _traced(function: Callable[[Any, Batch], Any]) -> Traced:
    tape = Tape()
    return tape.finish(function(tape, Batch(IDS, POSITIONS, LAYOUT, TYPES)))


def _aligned(*shape: int) -> Floats:
    """Zeros that begin at a multiple of 64 bytes, so that no register's load crosses a line."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 16, dtype=np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count].reshape(shape)
