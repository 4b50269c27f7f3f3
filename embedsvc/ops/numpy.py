"""The operations on NumPy, for machines without a GPU.

Texts lie packed, end to end, so nothing is padded. Row-wise work is done a few rows at a time so
that what one step leaves in the cache is there for the next.
"""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.cards import Dtype
from embedsvc.ops.base import Batch, Linear, Norm, TokenIds
from embedsvc.ops.blocks import BLOCK, SMALL_KERNEL, blocks_pay, in_blocks, times_blocks
from embedsvc.ops.cores import Cores

Floats = NDArray[np.float32]

ROWS = 256
"""Rows worked on at a time: fewer make products slow, more do not stay in the cache."""
LEAST_ROWS = 16
"""Rows that are worth another core."""
FEW_ROWS = 32
"""Rows at a time where many passes go over them, each as wide as 1536 floats."""
KEPT_BYTES = 64 << 20
SCORES = 1 << 16
"""Attention scores worked on at a time, for the same reason."""
SMALL_PRODUCT = 1 << 18
"""Multiplications in one head's product of queries and keys."""


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where each text lies in the rows."""

    bounds: NDArray[np.intp]  # (B + 1,): text b is rows bounds[b]:bounds[b + 1]
    runs: tuple[tuple[int, int, int], ...]  # (first row, texts, length) of neighbours of one length


@dataclass(frozen=True, slots=True)
class Weight:
    """A layer's weight (in, out), and the same in blocks for products of few rows."""

    whole: Floats
    blocks: Floats | None


class NumpyOps:
    """See `Ops`. All methods may be called from several threads at once."""

    name: Literal["numpy"] = "numpy"
    dtype: Dtype = "float32"
    max_batch_tokens = 4096
    grid = None
    pipelined = False

    def __init__(self, cores: int | None = None) -> None:
        self.slots = cores or usable_cores()
        self._cores = Cores(self.slots)
        plural = "s" if self.slots > 1 else ""
        self.device = f"{platform.machine()} CPU, {self.slots} core{plural}{self._cores.library}"
        self.run = self._cores.run
        self._blocks = blocks_pay()
        _keep_freed_memory()

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any]) -> Floats:
        return np.ascontiguousarray(value, dtype=np.float32)

    def linear_layer(self, weight: NDArray[Any], bias: NDArray[Any] | None) -> Linear:
        # (in, out): OpenBLAS multiplies by it up to twice as fast as by its transpose.
        whole = self.array(weight.T)
        blocks = in_blocks(whole) if self._blocks else None
        return Linear(Weight(whole, blocks), None if bias is None else self.array(bias))

    def tune(self, encode: Callable[[], object]) -> None:
        pass

    def compiled(self, function: Callable[[Batch], Floats]) -> Callable[[Batch], Floats]:
        return function

    def begin(self, value: Floats) -> Floats:
        return value

    # --- batches -------------------------------------------------------------------------------

    def batch(self, texts: Sequence[TokenIds]) -> Batch:
        lengths = [len(text) for text in texts]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        runs: list[tuple[int, int, int]] = []
        row = 0
        for length, same in groupby(lengths):
            count = sum(1 for _ in same)
            runs.append((row, count, length))
            row += count * length
        positions = np.concatenate([np.arange(length) for length in lengths])
        return Batch(np.concatenate(texts), positions, PackedLayout(bounds, tuple(runs)))

    def to_numpy(self, value: Floats) -> Floats:
        return value

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., Floats], *inputs: Floats) -> Floats:
        count = len(inputs[0])
        width = max(1, min(self._cores.width, count // LEAST_ROWS))
        cuts = [count * i // width for i in range(width + 1)]
        parts = [
            partial(_few_at_a_time, function, [value[start:stop] for value in inputs])
            for start, stop in pairwise(cuts)
        ]
        done = self._cores.together(parts)
        return done[0] if width == 1 else np.concatenate(done)

    def embedding(self, table: Floats, indices: NDArray[np.integer[Any]]) -> Floats:
        return table.take(indices, axis=0)

    def add(self, x: Floats, y: Floats) -> Floats:
        return np.add(x, y, out=x)

    def linear(self, x: Floats, layer: Linear) -> Floats:
        weight: Weight = layer.weight
        if weight.blocks is not None and len(x) * BLOCK * weight.blocks.shape[2] <= SMALL_KERNEL:
            out = times_blocks(x, weight.blocks)
        else:
            out = np.matmul(x, weight.whole)
        if layer.bias is not None:
            out += layer.bias
        return out

    def layer_norm(self, x: Floats, norm: Norm, eps: float) -> Floats:
        width = np.float32(x.shape[-1])
        x -= np.add.reduce(x, axis=-1, keepdims=True) / width
        scale = np.vecdot(x, x)  # then the variance, then one over the deviation
        scale /= width
        scale += np.float32(eps)
        np.sqrt(scale, out=scale)
        np.reciprocal(scale, out=scale)
        x *= scale[:, None]
        x *= norm.weight
        x += norm.bias
        return x

    def gelu(self, x: Floats) -> Floats:
        # Phi(x) = (1 + tanh(x P(x^2))) / 2 with P fitted to atanh(erf(x / sqrt 2)) / x; NumPy's
        # tanh is vectorised where erf is not.
        scratch = np.empty((2, min(len(x), FEW_ROWS), *x.shape[1:]), dtype=np.float32)
        for start in range(0, len(x), FEW_ROWS):
            part = x[start : start + FEW_ROWS]
            square, slope = scratch[:, : len(part)]
            with np.errstate(over="ignore"):  # of a huge |x|: infinity, whose tanh is right
                np.multiply(part, part, out=square)
                np.multiply(square, _GELU[0], out=slope)
                for coefficient in _GELU[1:-1]:
                    slope += coefficient
                    slope *= square
                slope += _GELU[-1]
                slope *= part
            np.tanh(slope, out=slope)
            slope += np.float32(1)
            slope *= np.float32(0.5)
            part *= slope
        return x

    def attention(self, qkv: Floats, heads: int, layout: PackedLayout) -> Floats:
        count, size = len(qkv), qkv.shape[1] // (3 * heads)
        out = np.empty((count, heads * size), dtype=np.float32)
        pieces: list[tuple[Floats, Floats, Floats, Floats]] = []
        for start, texts, length in layout.runs:
            rows = slice(start, start + texts * length)
            # (texts, heads, length, size) each
            q, k, v = qkv[rows].reshape(texts, length, 3, heads, size).transpose(2, 0, 3, 1, 4)
            context = out[rows].reshape(texts, length, heads, size).transpose(0, 2, 1, 3)
            # Queries at a time, so that a long text's scores stay in the cache too.
            queries = min(length, max(16, SMALL_PRODUCT // (length * size)))
            for texts_heads in _pieces(texts, heads, queries * length):
                for first in range(0, length, queries):
                    some = (*texts_heads, slice(first, first + queries))
                    pieces.append((q[some], k[texts_heads], v[texts_heads], context[some]))
        width = max(1, min(self._cores.width, count // (4 * LEAST_ROWS), len(pieces)))

        self._cores.together([partial(_attend_all, pieces[i::width]) for i in range(width)])
        return out

    # --- one row per text, for pooling -----------------------------------------------------------

    def segment_mean(self, hidden: Floats, layout: PackedLayout) -> Floats:
        sums: Floats = np.add.reduceat(hidden, layout.bounds[:-1], axis=0)
        sums /= np.diff(layout.bounds)[:, None]
        return sums

    def segment_max(self, hidden: Floats, layout: PackedLayout) -> Floats:
        return np.maximum.reduceat(hidden, layout.bounds[:-1], axis=0)

    def segment_first(self, hidden: Floats, layout: PackedLayout) -> Floats:
        return hidden[layout.bounds[:-1]]

    def segment_last(self, hidden: Floats, layout: PackedLayout) -> Floats:
        return hidden[layout.bounds[1:] - 1]


def usable_cores() -> int:
    """Cores this process may run on, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_freed_memory() -> None:
    """Have glibc keep what a batch frees for the next one, up to KEPT_BYTES.

    By default it gives large blocks back at once, and a pass spends a tenth of its time on getting
    them anew, page by page. Other C libraries have no such setting.
    """
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(trim_threshold, KEPT_BYTES)
        mallopt(mmap_threshold, KEPT_BYTES // 2)


def _few_at_a_time(function: Callable[..., Floats], inputs: list[Floats]) -> Floats:
    """`function(*inputs)`, for some ROWS rows after the other."""
    count = len(inputs[0])
    if count <= ROWS:
        return function(*inputs)
    pieces = -(-count // ROWS)
    cuts = [count * piece // pieces for piece in range(pieces + 1)]
    first = function(*(value[: cuts[1]] for value in inputs))
    out = np.empty((count, *first.shape[1:]), dtype=np.float32)
    out[: cuts[1]] = first
    for start, stop in pairwise(cuts[1:]):
        out[start:stop] = function(*(value[start:stop] for value in inputs))
    return out


def _pieces(texts: int, heads: int, scores: int) -> Iterator[tuple[slice, slice]]:
    """Slices of texts and of heads, as many as have some SCORES scores of `scores` each."""
    at_once = max(1, SCORES // scores)
    for text in range(0, texts, max(1, at_once // heads)):
        for head in range(0, heads, at_once):
            yield slice(text, text + max(1, at_once // heads)), slice(head, head + at_once)


def _attend_all(pieces: list[tuple[Floats, Floats, Floats, Floats]]) -> None:
    for q, k, v, context in pieces:
        _attend(q, k, v, context)


def _attend(q: Floats, k: Floats, v: Floats, context: Floats) -> None:
    """Softmax attention of queries (..., n, size) over (..., L, size), into (..., n, size)."""
    scores = np.matmul(q, k.swapaxes(-1, -2))  # (..., n, L)
    with np.errstate(over="ignore"):
        np.exp(scores, out=scores)
    sums = np.add.reduce(scores, axis=-1, keepdims=True)
    # Softmax is the same without the row's maximum taken off first, and two passes shorter, as long
    # as nothing overflows or vanishes; scores of real models are far from both.
    if not (sums.min() > 1e-30 and sums.max() < 1e30):
        np.matmul(q, k.swapaxes(-1, -2), out=scores)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        sums = np.add.reduce(scores, axis=-1, keepdims=True)
    np.matmul(scores, v, out=context)
    context /= sums


# Coefficients of P, highest power of x^2 first: x * Phi(x) to within 7e-8 everywhere.
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
