"""The operations on NumPy, for machines without a GPU or a C compiler.

Texts lie packed, end to end, so nothing is padded. Row-wise work is done a few rows at a time so
that what one step leaves in the cache is there for the next.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any, Literal, cast

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype, Pooling
from embedsvc.checkpoints.quantized import Quantized, expand
from embedsvc.inference.ops.base import (
    Attention,
    Batch,
    Experts,
    Linear,
    Norm,
    Ops,
    T,
    check_chosen,
)
from embedsvc.inference.ops.held import Held, Span, check_texts
from embedsvc.inference.ops.memory import (
    MemoryUse,
    process_memory,
    return_freed_memory,
    tune_allocator,
)
from embedsvc.inference.ops.numpy.attention import attend, pieces_of
from embedsvc.inference.ops.numpy.pooling import pool
from embedsvc.system import machine
from embedsvc.texts.item import TokenIds

Floats = NDArray[np.float32]

ROWS = 256
"""Rows worked on at a time: fewer make products slow, more do not stay in the cache."""
FEW_ROWS = 32
"""Rows at a time where many passes go over them, each as wide as 1536 floats."""
KEPT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where each text lies in the rows."""

    bounds: NDArray[np.intp]  # (B + 1,): text b is rows bounds[b]:bounds[b + 1]
    runs: tuple[tuple[int, int, int], ...]  # (first row, texts, length) of neighbours of one length


class NumpyOps:
    """See `Ops`. All methods may be called from several threads at once."""

    name: Literal["native", "numpy"] = "numpy"
    dtype: Dtype = "float32"
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
        self._set_allocator()

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any] | Quantized) -> Floats:
        return np.require(expand(value), np.float32, ["C", "A"])

    def float32(self, value: NDArray[Any]) -> Floats:
        return self.array(value)

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        # (in, out): OpenBLAS multiplies by it up to twice as fast as by its transpose.
        return Linear(self.array(expand(weight).T), None if bias is None else self.array(bias))

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        return Experts(self.array(up.swapaxes(1, 2)), self.array(down.swapaxes(1, 2)))

    def _set_allocator(self) -> None:
        """Have glibc keep what a batch frees for the next one, up to KEPT_BYTES.

        By default it gives large blocks back at once, and a pass spends a tenth of its time on
        getting them anew, page by page.
        """
        tune_allocator(trim_threshold=KEPT_BYTES, mmap_threshold=KEPT_BYTES // 2)

    def tune(self, seconds: Callable[[], float]) -> None:
        pass

    def memory_use(self) -> MemoryUse:
        return process_memory()

    def release(self) -> None:
        return_freed_memory()

    def compiled(self, function: Callable[[Ops, Batch], Floats]) -> Callable[[Batch], Floats]:
        return Held(self, function, partial(function, self), _span)

    def begin(self, value: Floats) -> Floats:
        return value

    # --- batches -------------------------------------------------------------------------------

    def batch(self, texts: Sequence[TokenIds], types: Sequence[TokenIds] | None = None) -> Batch:
        check_texts(texts, types)
        joined = None if types is None else np.concatenate(types)
        lengths = [len(text) for text in texts]
        if len(texts) == 1:  # most often, when nothing else is going on: without delay
            (ids,), (length,) = texts, lengths
            layout = PackedLayout(np.array([0, length]), ((0, 1, length),))
            positions = np.arange(length, dtype=np.int32)
            if not ids.flags.carray:  # contiguous and aligned, as the kernels read it
                ids = ids.copy()
            return Batch(ids, positions, layout, joined)
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        runs: list[tuple[int, int, int]] = []
        row = 0
        for length, same in groupby(lengths):
            count = sum(1 for _ in same)
            runs.append((row, count, length))
            row += count * length
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        layout = PackedLayout(bounds, tuple(runs))
        return Batch(np.concatenate(texts), positions, layout, joined)

    def split(self, rows: Floats, layout: PackedLayout) -> list[Floats]:
        return np.split(rows, layout.bounds[1:-1])

    def to_numpy(self, value: Floats) -> Floats:
        return value

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
        return _gate(x, _GELU)

    def gelu_tanh(self, x: Floats) -> Floats:
        return _gate(x, _GELU_TANH)

    def silu(self, x: Floats) -> Floats:
        scratch = np.empty((min(len(x), FEW_ROWS), *x.shape[1:]), dtype=np.float32)
        for start in range(0, len(x), FEW_ROWS):
            part = x[start : start + FEW_ROWS]
            divisor = scratch[: len(part)]
            np.negative(part, out=divisor)
            with np.errstate(over="ignore"):  # of a very negative x: infinity, and x / that is 0
                np.exp(divisor, out=divisor)
            divisor += np.float32(1)
            part /= divisor
        return x

    def tanh(self, x: Floats) -> Floats:
        return np.tanh(x, out=x)

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

    def attention(
        self, q: Floats, k: Floats, v: Floats, spec: Attention, layout: PackedLayout
    ) -> Floats:
        size = q.shape[1] // spec.heads
        out = np.empty((len(q), spec.heads * size), dtype=np.float32)
        for run in layout.runs:
            attend(pieces_of(q, k, v, out, spec, run))
        return out

    def pool(self, hidden: Floats, layout: PackedLayout, poolings: Sequence[Pooling]) -> Floats:
        parts = [pool(hidden, layout.bounds, pooling) for pooling in poolings]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _span(batch: Batch) -> Span:
    longest = max(length for _, _, length in batch.layout.runs)
    types = (0, 0) if batch.types is None else (int(batch.types.min()), int(batch.types.max()))
    return Span(int(batch.ids.min()), int(batch.ids.max()), longest, types)


def _one_thread_a_product() -> str:
    """Sets OpenBLAS so, since batches take a core each; says what kind of processor it takes this
    one for. Where NumPy is built on another library (Accelerate) there is nothing to set."""
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


def _gate(x: Floats, coefficients: tuple[np.float32, ...]) -> Floats:
    """x * (1 + tanh(x P(x^2))) / 2, where P has these coefficients, highest power first.

    NumPy's tanh is vectorised where erf is not.
    """
    scratch = np.empty((2, min(len(x), FEW_ROWS), *x.shape[1:]), dtype=np.float32)
    for start in range(0, len(x), FEW_ROWS):
        part = x[start : start + FEW_ROWS]
        square, slope = scratch[:, : len(part)]
        with np.errstate(over="ignore"):  # of a huge |x|: infinity, whose tanh is right
            np.multiply(part, part, out=square)
            np.multiply(square, coefficients[0], out=slope)
            for coefficient in coefficients[1:-1]:
                slope += coefficient
                slope *= square
            slope += coefficients[-1]
            slope *= part
        np.tanh(slope, out=slope)
        slope += np.float32(1)
        slope *= np.float32(0.5)
        part *= slope
    return x


# P fitted to atanh(erf(x / sqrt 2)) / x: x * Phi(x) to within 7e-8 everywhere.
_GELU = tuple(
    np.float32(c)
    for c in (
        1.8139253429337756e-09,
        -1.3378311245083756e-07,
        3.974069347832e-06,
        -5.5273376281994154e-05,
        -3.3026736849883246e-05,
        0.03633414916652728,
        0.7978842683911042,
    )
)
_GELU_TANH = (np.float32(0.7978845608 * 0.044715), np.float32(0.7978845608))
