"""The operations on NumPy, for machines without a GPU or a C compiler.

Texts lie end to end, so nothing is padded. What treats each row by itself is done some rows at a
time, so that one step finds in the cache what the step before it wrote.
"""

import platform
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype, Pooling
from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import (
    Attention,
    Batch,
    CompiledPass,
    Experts,
    Floats,
    ForwardPass,
    Linear,
    Norm,
    Read,
    T,
    check_chosen,
)
from embedsvc.inference.ops.memory import (
    PASSES,
    MemoryUse,
    process_memory,
    return_freed_memory,
    tune_allocator,
)
from embedsvc.inference.ops.numpy import activations
from embedsvc.inference.ops.numpy.attention import attend, pieces_of
from embedsvc.inference.ops.numpy.layout import PackedLayout, lay_out, range_of
from embedsvc.inference.ops.numpy.maxsim import score_documents
from embedsvc.inference.ops.numpy.pooling import pool
from embedsvc.inference.ops.table_limits import CheckedPass, check_texts
from embedsvc.inference.ops.tuning import Tuning
from embedsvc.system import machine
from embedsvc.texts.item import TokenIds

ROWS = 256
"""Rows that `rows` takes at a time: fewer make products slow, more do not stay in the cache."""
KEPT_BYTES = 64 << 20
"""Freed memory that glibc may keep for the next batch."""


class NumpyOps:
    """See `Ops`. All methods may be called from several threads at once."""

    name: Literal["native", "numpy"] = "numpy"
    dtype: Dtype = "float32"
    dtypes: tuple[Dtype, ...] = ("float32",)
    max_batch_tokens = 4096
    grid = None
    pipelined = False

    def __init__(self, cores: int | None = None) -> None:
        self.slots = cores or machine.cores().usable
        plural = "s" if self.slots > 1 else ""
        self.device = (
            f"{platform.machine()} CPU, {self.slots} core{plural}{_one_thread_a_product()}"
        )
        self.memory = machine.memory().usable
        self.pass_memory = self.memory // PASSES
        self._set_allocator()

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any] | Quantized) -> Floats:
        return np.require(expand(value), np.float32, ["C", "A"])

    def table(self, value: NDArray[Any] | Quantized) -> Any:
        return self.array(value)

    def float32(self, value: NDArray[Any]) -> Floats:
        return self.array(value)

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        # (in, out): OpenBLAS multiplies by it up to twice as fast as by its transpose.
        return Linear(self.array(expand(weight).T), None if bias is None else self.array(bias))

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        return Experts(self.array(up.swapaxes(1, 2)), self.array(down.swapaxes(1, 2)))

    def _set_allocator(self) -> None:
        """Have glibc keep what a batch frees for the next one.

        By default it gives large blocks back at once, and a pass then spends a tenth of its time
        getting them anew, page by page.
        """
        tune_allocator(trim_threshold=KEPT_BYTES, mmap_threshold=KEPT_BYTES // 2)

    def tune(self, tuning: Tuning) -> None:
        pass

    def memory_use(self) -> MemoryUse:
        return process_memory()

    def release(self) -> None:
        return_freed_memory()

    def compiled(self, function: ForwardPass) -> CompiledPass:
        return CheckedPass(self, function, partial(function, self), range_of)

    def begin(self, value: Floats) -> Floats:
        return value

    # --- batches -------------------------------------------------------------------------------

    def batch(
        self,
        texts: Sequence[TokenIds],
        types: Sequence[TokenIds] | None = None,
        seen: Sequence[int] | None = None,
    ) -> Batch:
        check_texts(texts, types, seen)
        return lay_out(texts, types, seen)

    def split(self, rows: Floats, layout: PackedLayout) -> list[Floats]:
        return np.split(rows, layout.bounds[1:-1])

    def to_numpy(self, value: Floats) -> Floats:
        return value

    def maxsim(self, query: Floats, documents: Sequence[NDArray[np.float16]]) -> Floats:
        return score_documents(query, documents)

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., T], *inputs: Floats) -> T:
        count = len(inputs[0])
        if count <= ROWS:
            return function(*inputs)
        pieces = -(-count // ROWS)
        cuts = [count * piece // pieces for piece in range(pieces + 1)]
        whole: list[Floats] = []
        part: Any = None
        for start, stop in pairwise(cuts):
            part = function(*(value[start:stop] for value in inputs))
            arrays = cast(tuple[Floats, ...], part if isinstance(part, tuple) else (part,))
            if not whole:
                whole = [np.empty((count, *array.shape[1:]), dtype=np.float32) for array in arrays]
            for out, array in zip(whole, arrays, strict=True):
                out[start:stop] = array
        return cast(T, tuple(whole) if isinstance(part, tuple) else whole[0])

    def copy(self, x: Floats) -> Floats:
        return x.copy()

    def embedding(self, table: Floats, indices: NDArray[np.integer[Any]]) -> Floats:
        return table.take(indices, axis=0)

    def looked_up(self, rows: int, indices: NDArray[np.integer[Any]]) -> None:
        pass

    def add(self, x: Floats, y: Floats) -> Floats:
        return np.add(x, y, out=x)

    def multiply(self, x: Floats, y: Floats) -> Floats:
        return np.multiply(x, y, out=x)

    def linear(self, x: Floats, layer: Linear) -> Floats:
        out = np.matmul(x, layer.weight)
        if layer.bias is not None:
            out += layer.bias
        return out

    def experts(self, x: Floats, scores: Floats, chosen: int, layer: Experts) -> Floats:
        check_chosen(chosen, scores.shape[1], layer)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        best = np.argpartition(-weights, chosen - 1, axis=1)[:, :chosen]
        out = np.zeros_like(x)
        for expert in np.unique(best):
            rows = np.flatnonzero((best == expert).any(axis=1))
            part = self.gelu(np.matmul(x[rows], layer.up[expert]))
            part = np.matmul(part, layer.down[expert])
            part *= weights[rows, expert, None]
            out[rows] += part
        return out

    def layer_norm(self, x: Floats, norm: Norm, eps: float) -> Floats:
        x -= np.add.reduce(x, axis=-1, keepdims=True) / np.float32(x.shape[-1])
        x *= _over_root_mean_square(x, eps)
        x *= norm.weight
        if norm.bias is not None:
            x += norm.bias
        return x

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        slices = x.reshape(len(x), -1, len(weight))  # a view, also of columns
        slices *= _over_root_mean_square(slices, eps)
        slices *= weight
        return x

    def gelu(self, x: Floats) -> Floats:
        return activations.gelu(x)

    def gelu_tanh(self, x: Floats) -> Floats:
        return activations.gelu_tanh(x)

    def silu(self, x: Floats) -> Floats:
        return activations.silu(x)

    def activate(self, x: Floats, activation: Activation) -> Floats:
        return activations.activate(x, activation)

    def rope(self, x: Floats, table: Floats, positions: NDArray[np.integer[Any]]) -> Floats:
        half = table.shape[1] // 2
        turns = table.take(positions, axis=0)[:, None]  # (N, 1, size)
        cos, sin = turns[..., :half], turns[..., half:]
        heads = x.reshape(len(x), -1, 2 * half)  # a view, also of columns
        first, second = heads[..., :half], heads[..., half:]
        turned = second * sin
        second *= cos
        second += first * sin
        first *= cos
        first -= turned
        return x

    def shift(self, x: Floats, by: int, layout: PackedLayout) -> Floats:
        out = np.zeros_like(x)
        for start, stop in pairwise(layout.bounds):
            count = stop - start - abs(by)
            if count > 0:
                to, of = start + max(0, -by), start + max(0, by)
                out[to : to + count] = x[of : of + count]
        return out

    def attention(
        self,
        q: Floats,
        k: Floats,
        v: Floats,
        spec: Attention,
        layout: PackedLayout,
        read: Read = "all",
    ) -> Floats:
        size = q.shape[1] // spec.heads
        out = np.empty((len(q), spec.heads * size), dtype=np.float32)
        for run in layout.runs:
            attend(pieces_of(q, k, v, out, spec, run, read))
        return out

    def pool(self, hidden: Floats, layout: PackedLayout, poolings: Sequence[Pooling]) -> Floats:
        parts = [pool(hidden, layout.bounds, pooling) for pooling in poolings]
        return self.side_by_side(parts)

    def side_by_side(self, parts: Sequence[Floats]) -> Floats:
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _one_thread_a_product() -> str:
    """Have OpenBLAS compute each product on one thread, since each batch has a core of its own.

    Returns the kind of processor that OpenBLAS takes this one for, as the end of a sentence. Where
    NumPy is built on another library (Accelerate) there is nothing to set.
    """
    controller: Any = threadpoolctl.ThreadpoolController()
    libraries: list[Any] = controller.select(internal_api="openblas").lib_controllers
    for library in libraries:
        library.set_num_threads(1)
    return "".join(f", OpenBLAS for {library.architecture}" for library in libraries[:1])


def _over_root_mean_square(x: Floats, eps: float) -> Floats:
    """1 / sqrt(mean of squares + eps) over the last axis, which is kept: (..., 1)."""
    scale = np.vecdot(x, x)
    scale /= np.float32(x.shape[-1])
    scale += np.float32(eps)
    np.sqrt(scale, out=scale)
    np.reciprocal(scale, out=scale)
    return scale[..., None]
