"""How much one kernel may do, and how a pass is cut where one would do more.

macOS kills a process whose work keeps the GPU from its windows for some 5 seconds (mlx#3302), and
MLX leaves it to applications to stay below that (mlx#3457).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import mlx.core as mx

T = TypeVar("T")

MOST_OPERATIONS = 1 << 39
"""Multiplications and additions of one kernel: 0.4 s of an M1, which does some 1.5e12 a second.

It is the widest layer of BERT-large for a batch of 65536 tokens, 2 * 65536 * 1024 * 4096, so that
only attention to long texts and the layers of much wider models are ever cut. What counts for macOS
is a command buffer, which MLX ends once it has 40 kernels (50 on the largest chips) or kernels that
read 40 million numbers in all. Linear layers reach that within a second, whatever their shapes.
Parts of attention read the same numbers again, so each ends its buffer by itself (`submit`).
"""
MOST_NUMBERS = 1 << 26
"""Numbers of a mask, or of scores, that are in memory at a time."""
TILE = 64
"""Rows that kernels compute at a time; a part has a multiple of that."""


def at_once(operations: int, numbers: int = 0) -> int:
    """How many rows, of so many operations each, one kernel may compute.

    `numbers` is how many of a mask, or of scores, go through memory for each row.

    >>> at_once(MOST_OPERATIONS // 1000)
    960
    """
    most = MOST_OPERATIONS // operations
    if numbers:
        most = min(most, MOST_NUMBERS // numbers)
    return most // TILE * TILE or max(1, most)


def by_rows(function: Callable[..., T], inputs: tuple[mx.array, ...], most: int) -> T:
    """`function(*inputs)`, with no more than so many rows of each input at a time.

    The function treats every row by itself, and returns an array or a tuple of arrays.
    """
    count = inputs[0].shape[0]
    if count <= most:
        return function(*inputs)
    step = -(-count // -(-count // most))  # equal parts, of whole tiles
    step = min(most, -(-step // TILE) * TILE)
    parts: list[Any] = [
        function(*(each[first : first + step] for each in inputs))
        for first in range(0, count, step)
    ]
    if isinstance(parts[0], tuple):
        return cast(T, tuple(mx.concatenate(list(column)) for column in zip(*parts, strict=True)))
    return cast(T, mx.concatenate(parts))


def submit(part: mx.array) -> None:
    """Have the GPU begin a part of a pass, in a command buffer that ends with it."""
    mx.async_eval(part)  # pyright: ignore[reportUnknownMemberType]: its *args have no types
