"""Products of a few rows with a large weight, in blocks small enough for OpenBLAS's small kernels.

An ordinary product copies the weight into an order of its own first, which for a few rows costs
more than the product. On processors with AVX-512, OpenBLAS has kernels that do without for small
products, so a weight cut into blocks is up to three times as fast, on one thread.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK = 64
"""Columns of a block."""
DEEP = 512
"""Rows of a block at most."""
SMALL_KERNEL = 1_000_000
"""Multiplications up to which OpenBLAS uses its small kernels."""


def in_blocks(weight: Floats) -> Floats | None:
    """A weight (in, out) as (parts, out / BLOCK, in / parts, BLOCK); None if it does not divide."""
    inputs, outputs = weight.shape
    parts = -(-inputs // DEEP)
    if inputs % parts or outputs % BLOCK:
        return None
    cut = weight.reshape(parts, inputs // parts, outputs // BLOCK, BLOCK)
    return np.ascontiguousarray(cut.transpose(0, 2, 1, 3))


def times_blocks(x: Floats, blocks: Floats) -> Floats:
    """x (n, in) times a weight in blocks: (n, out)."""
    parts, columns, deep, _ = blocks.shape
    sums = np.empty((parts, len(x), columns * BLOCK), dtype=np.float32)
    np.matmul(
        x.reshape(len(x), parts, 1, deep).transpose(1, 2, 0, 3),  # (parts, 1, n, deep)
        blocks,
        out=sums.reshape(parts, len(x), columns, BLOCK).transpose(0, 2, 1, 3),
    )
    return sums[0] if parts == 1 else np.add.reduce(sums, axis=0)


def blocks_pay() -> bool:
    """Whether blocks are faster here, by a trial of a few milliseconds."""
    x = np.ones((8, 384), dtype=np.float32)
    weights = [np.ones((384, 1536), dtype=np.float32) for _ in range(4)]  # more than stay cached
    blocks = [in_blocks(weight) for weight in weights]
    cut = [block for block in blocks if block is not None]
    whole = _seconds(lambda: [np.matmul(x, weight) for weight in weights])
    return _seconds(lambda: [times_blocks(x, block) for block in cut]) < 0.8 * whole


def _seconds(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best
