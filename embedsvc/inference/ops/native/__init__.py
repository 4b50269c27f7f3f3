"""The operations in C, for machines without a GPU where the kernels were built.

A whole pass is one call, without the interpreter. While other passes run it keeps to its own core;
a pass that has the machine to itself is helped by the other cores.
"""

import platform
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.base import (
    Array,
    Batch,
    CompiledPass,
    Experts,
    Floats,
    ForwardPass,
    Linear,
)
from embedsvc.inference.ops.memory import MemoryUse, tune_allocator
from embedsvc.inference.ops.native import formats, library
from embedsvc.inference.ops.native.encoding import Encoded, encode
from embedsvc.inference.ops.native.formats.bfloat16 import from_bfloat16, to_bfloat16
from embedsvc.inference.ops.native.formats.float32 import float32_panels
from embedsvc.inference.ops.native.formats.quantized import QuantizedTable, stays_quantized
from embedsvc.inference.ops.native.library import Kernels
from embedsvc.inference.ops.native.maxsim import score_documents
from embedsvc.inference.ops.native.program import Program
from embedsvc.inference.ops.native.steps import NotOnTape, Value
from embedsvc.inference.ops.native.tape import Tape, trace
from embedsvc.inference.ops.numpy import NumpyOps

WEIGHT_BYTES = 512 << 10
"""A weight of so many bytes lies in memory of its own, which goes back when it is freed."""


class NativeOps(NumpyOps):
    """See `Ops`. A pass with an operation that has no kernel runs on NumPy, except its products."""

    name: Literal["native", "numpy"] = "native"
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")

    def __init__(
        self,
        cores: int | None = None,
        kernels: Kernels | None = None,
        dtype: Dtype | None = None,
    ) -> None:
        """`cores` None: all of them; `kernels` None: the best that this processor can run."""
        super().__init__(cores)
        self._library = library.load()
        self._kernels = kernels or self._library.kernels[0]
        self._library.functions.embedsvc_threads(self.slots)
        plural = "s" if self.slots > 1 else ""
        self.dtype = dtype or "float32"
        self.device = (
            f"{platform.machine()} CPU, {self.slots} core{plural}, {self._kernels.name} kernels"
            f"{self._products()}"
        )

    def _products(self) -> str:
        """What multiplies in this dtype, as the end of a sentence."""
        kernels = self._kernels
        by = {"bfloat16": kernels.bfloat16, "int8": kernels.int8}.get(self.dtype)
        if by is None:
            return ""
        doubt = f" ({kernels.distrusted} gives other results here and is not used)"
        return f", {self.dtype} products by {by}{doubt if kernels.distrusted else ''}"

    def _attention(self) -> str:
        """The operation for attention. In lower precisions its products are in bfloat16, if there
        are instructions for them: layers lose more than that."""
        by = self._kernels.bfloat16
        rounded = self.dtype != "float32" and by not in ("", self._kernels.name)
        return "attention_bfloat16" if rounded else "attention"

    def _set_allocator(self) -> None:
        # The kernels keep their own memory; weights go back to the system when a model is unloaded.
        tune_allocator(trim_threshold=WEIGHT_BYTES, mmap_threshold=WEIGHT_BYTES)

    def memory_use(self) -> MemoryUse:
        use = super().memory_use()
        kept = self._library.functions.embedsvc_kept()  # by threads that run nothing now
        return MemoryUse(max(0, use.active - kept), kept, use.peak)

    def release(self) -> None:
        self._library.functions.embedsvc_release()
        super().release()

    def table(
        self, value: NDArray[Any] | Quantized
    ) -> Floats | NDArray[np.uint16] | QuantizedTable:
        """What is quantised stays so; in lower precisions, else, the bits of bfloat16, two columns
        in a word."""
        if isinstance(value, Quantized) and stays_quantized(value):
            return QuantizedTable(value)
        table = self.array(value)
        rounded = self.dtype != "float32" and table.shape[1] % 2 == 0
        return to_bfloat16(table) if rounded else table

    def embedding(
        self, table: NDArray[Any] | QuantizedTable, indices: NDArray[np.integer[Any]]
    ) -> Floats:
        if isinstance(table, QuantizedTable):
            return table.take(indices)
        rows = table.take(indices, axis=0)
        return rows if rows.dtype == np.float32 else from_bfloat16(rows)

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        return Linear(formats.pack(weight, bias, self._kernels, self.dtype), None)  # and the bias

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        return Experts(*(float32_panels(weights, self._kernels) for weights in (up, down)))

    def linear(self, x: Floats, layer: Linear) -> Floats:
        return self._run_alone(lambda tape, inputs: tape.linear(inputs[0], layer), x)

    def experts(self, x: Floats, scores: Floats, chosen: int, layer: Experts) -> Floats:
        return self._run_alone(
            lambda tape, inputs: tape.experts(inputs[0], inputs[1], chosen, layer), x, scores
        )

    def _run_alone(
        self, operation: Callable[[Tape, list[Value]], Value], *inputs: Floats
    ) -> Floats:
        """Run one operation in C for a pass that otherwise runs on NumPy.

        Each input is taken for a table of embeddings, whose row i is looked up by id i.
        """
        tables = [np.require(x, np.float32, ["C", "A"]) for x in inputs]

        def function(tape: Tape, batch: Batch) -> Value:
            return operation(tape, [tape.embedding(table, batch.ids) for table in tables])

        rows = np.arange(len(inputs[0]), dtype=np.int32)
        return cast(Floats, self.program(self.trace(function)).run(self.batch([rows])))

    def maxsim(self, query: Floats, documents: Sequence[NDArray[np.float16]]) -> Floats:
        return score_documents(self._library.functions, self._kernels.number, query, documents)

    def trace(self, function: Callable[[Any, Batch], Any]) -> Encoded:
        """The pass `function(ops, batch)`, written down. Raises `NotOnTape`."""
        return encode(*trace(function, Tape(self._attention())), self._library.declared)

    def program(self, encoded: Encoded) -> Program:
        """The pass, checked. Raises `CheckpointError`."""
        return Program(self._library, self._kernels, encoded)

    def compiled(self, function: ForwardPass) -> CompiledPass:
        lock = threading.Lock()
        fastest: CompiledPass | None = None

        def run(batch: Batch) -> Array:
            nonlocal fastest
            with lock:
                if fastest is None:
                    try:
                        fastest = self.program(self.trace(function)).run
                    except NotOnTape:
                        fastest = super(NativeOps, self).compiled(function)
            return fastest(batch)

        return run
