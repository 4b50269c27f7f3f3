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

from embedsvc.checkpoints.packed_weights import Quantized, expand
from embedsvc.ops.base import Batch, Experts, Linear, Ops
from embedsvc.ops.memory import tune_allocator
from embedsvc.ops.native import library
from embedsvc.ops.native.library import Kernels
from embedsvc.ops.native.tape import (
    IDS,
    INSTRUCTION,
    LAYOUT,
    POSITIONS,
    NotOnTape,
    Program,
    Tape,
    Value,
    Weight,
)
from embedsvc.ops.numpy import Floats, NumpyOps, PackedLayout

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
        if self._kernels.instruction_bytes != INSTRUCTION.itemsize:
            raise OSError("the kernels were built from another version: install embedsvc again")
        self._library.embedsvc_threads(self.slots)
        plural = "s" if self.slots > 1 else ""
        self.device = (
            f"{platform.machine()} CPU, {self.slots} core{plural}, {self._kernels.name} kernels"
        )

    def _set_allocator(self) -> None:
        # The kernels keep what a pass needs; weights go back as they came when a model is unloaded.
        tune_allocator(trim_threshold=WEIGHT_BYTES, mmap_threshold=WEIGHT_BYTES)

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
        tables = [np.ascontiguousarray(x) for x in inputs]

        def function(tape: Tape, batch: Batch) -> Value:
            return operation(tape, [tape.embedding(table, batch.ids) for table in tables])

        rows = np.arange(len(inputs[0]), dtype=np.int32)
        return self._run(_traced(function), self.batch([rows]))

    def compiled(self, function: Callable[[Ops, Batch], Floats]) -> Callable[[Batch], Floats]:
        lock = threading.Lock()
        program: Program | None = None
        traced = False

        def run(batch: Batch) -> Floats:
            nonlocal program, traced
            with lock:
                if not traced:
                    try:
                        program = _traced(function)
                    except NotOnTape:
                        program = None
                    traced = True
            return function(self, batch) if program is None else self._run(program, batch)

        return run

    def _run(self, program: Program, batch: Batch) -> Floats:
        layout: PackedLayout = batch.layout
        texts, tokens = len(layout.bounds) - 1, len(batch.ids)
        out = np.empty((texts if program.per_text else tokens, program.width), dtype=np.float32)
        done = self._library.embedsvc_run(
            self._kernels.pointer,
            program.tape.ctypes.data,
            len(program.tape),
            program.buffers.ctypes.data,
            len(program.buffers),
            batch.ids.ctypes.data,
            batch.positions.ctypes.data,
            tokens,
            layout.bounds.ctypes.data,
            texts,
            program.result,
            out.ctypes.data,
        )
        if not done:
            raise MemoryError(f"no memory for a batch of {tokens} tokens")
        return out


def _traced(function: Callable[[Any, Batch], Any]) -> Program:
    tape = Tape()
    return tape.finish(function(tape, Batch(IDS, POSITIONS, LAYOUT)))


def _aligned(*shape: int) -> Floats:
    """Zeros that begin at a multiple of 64 bytes, so that no register's load crosses a line."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 16, dtype=np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count].reshape(shape)
