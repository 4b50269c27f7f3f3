"""Attention heads too narrow for Metal's fused attention, made twice as wide with zeros.

Zeros add nothing to the products of queries and keys, and give columns of zeros, which are cut off
again, so that no result changes.
"""

# MLX's stubs leave *args untyped, in reshape among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx

FUSED_SIZES = (64, 72, 80, 96, 128)
"""Widths of the heads that Metal's fused attention takes, of more than 8 queries.

MLX has kernels for 192 and 256 too, and finds it faster to write scores to memory.
"""
DOUBLED_LENGTH = 128
"""The shortest texts of a batch whose heads are doubled.

Without the fused attention, scores go through memory six times: the product writes them, mask and
softmax read and write them, the next product reads them. With heads of 32, for each token that a
query sees and each of its columns, these are 6 / 32 numbers of 2 bytes, 6 ps at the 60 GB/s of an
M1, beside 4 operations, 3 ps at 1.5e12 a second. Doubled, it is 8 operations, 5 ps, and once for
each column 11 numbers more to move, 370 ps. The two meet at 100 tokens; at 256 doubling takes a
fifth less time, in the long run 40 % less.
"""


def should_double(size: int, texts: int, length: int) -> bool:
    """Whether heads of that width are too narrow, twice as wide are not, and it pays.

    For one text it always does: its kernels wait for one another, not for memory, and with the
    fused attention three do so instead of six.
    """
    narrow = size not in FUSED_SIZES and 2 * size in FUSED_SIZES
    return narrow and (texts == 1 or length >= DOUBLED_LENGTH)


def double(x: mx.array, size: int) -> mx.array:
    """Heads side by side, x (N, heads * size), each followed by as many zeros, in one kernel."""
    halves = mx.array([[1], [0]], dtype=x.dtype)
    return (x.reshape(x.shape[0], -1, 1, size) * halves).reshape(x.shape[0], -1)


def halve(x: mx.array, size: int) -> mx.array:
    """x (N, heads * 2 * size) without what follows the first `size` columns of each head."""
    return x.reshape(x.shape[0], -1, 2 * size)[..., :size].reshape(x.shape[0], -1)
