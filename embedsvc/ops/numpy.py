"""The operations on NumPy, for machines without a GPU.

Texts lie packed, end to end, so nothing is padded. Row-wise work is done a few rows at a time so
that what one step leaves in the cache is there for the next.
"""

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.cards import Dtype
from embedsvc.ops.base import Array, Batch, Linear, Norm, TokenIds

Floats = NDArray[np.float32]

ROWS = 128
"""Rows worked on at a time: 128 rows of 1536 floats fit a core's second-level cache."""


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Where each text lies in the rows."""

    bounds: NDArray[np.intp]  # (B + 1,): text b is rows bounds[b]:bounds[b + 1]
    runs: tuple[tuple[int, int, int], ...]  # (first row, texts, length) of neighbours of one length


class NumpyOps:
    """See `Ops`. All methods may be called from several threads at once."""

    name: Literal["numpy"] = "numpy"
    dtype: Dtype = "float32"
    max_batch_tokens = 512

    def __init__(self) -> None:
        cores = usable_cores()
        self.device = f"{platform.machine()} CPU, {cores} core{'s' if cores > 1 else ''}"
        self.slots = cores

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any]) -> Floats:
        return np.ascontiguousarray(value, dtype=np.float32)

    def linear_layer(self, weight: NDArray[Any], bias: NDArray[Any] | None) -> Linear:
        # (in, out): OpenBLAS multiplies by it up to twice as fast as by its transpose.
        return Linear(self.array(weight.T), None if bias is None else self.array(bias))

    def ready(self, weights: Sequence[Array]) -> None:
        pass

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

    def embedding(self, table: Floats, indices: NDArray[np.integer[Any]]) -> Floats:
        return table.take(indices, axis=0)

    def add(self, x: Floats, y: Floats) -> Floats:
        return np.add(x, y, out=x)

    def linear(self, x: Floats, layer: Linear) -> Floats:
        out = np.matmul(x, layer.weight)
        if layer.bias is not None:
            out += layer.bias
        return out

    def layer_norm(self, x: Floats, norm: Norm, eps: float) -> Floats:
        width = x.shape[-1]
        x -= x.mean(axis=-1, keepdims=True)
        spread = np.einsum("nd,nd->n", x, x)
        spread /= width
        spread += eps
        np.sqrt(spread, out=spread)
        x /= spread[:, None]
        x *= norm.weight
        x += norm.bias
        return x

    def gelu(self, x: Floats) -> Floats:
        # Phi(x) = (1 + tanh(x P(x^2))) / 2 with P fitted to atanh(erf(x / sqrt 2)) / x:
        # within 7e-8 of x * Phi(x) everywhere, and NumPy's tanh is vectorised where erf is not.
        with np.errstate(over="ignore"):  # of a huge |x|: infinity, whose tanh is right
            square = x * x
            slope = square * _GELU[0]
            for coefficient in _GELU[1:-1]:
                slope += coefficient
                slope *= square
            slope += _GELU[-1]
            slope *= x
        np.tanh(slope, out=slope)
        slope += np.float32(1)
        slope *= x
        slope *= np.float32(0.5)
        return slope

    def attention(self, qkv: Floats, heads: int, scale: float, layout: PackedLayout) -> Floats:
        count, width = len(qkv), qkv.shape[1] // 3
        out = np.empty((count, width), dtype=np.float32)
        for start, texts, length in layout.runs:
            stop = start + texts * length
            # (3, texts, heads, length, width / heads)
            parts = qkv[start:stop].reshape(texts, length, 3, heads, width // heads)
            q, k, v = parts.transpose(2, 0, 3, 1, 4)
            scores = np.matmul(q, k.swapaxes(-1, -2))  # (texts, heads, length, length)
            scores *= np.float32(scale)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            context = out[start:stop].reshape(texts, length, heads, width // heads)
            np.matmul(scores, v, out=context.transpose(0, 2, 1, 3))
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


# Coefficients of P, highest power of x^2 first.
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
