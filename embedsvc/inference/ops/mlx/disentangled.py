"""Attention whose scores depend on how far apart tokens are, and on what they are, on MLX."""

# MLX's stubs leave *args untyped, in reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx
import numpy as np

from embedsvc.inference.ops.layers import Relative


def relative_scores(q: mx.array, k: mx.array, relative: Relative) -> mx.array:
    """What `Relative` adds to the scores of queries and keys (B, heads, L, size), scaled as q and k
    are: (B, heads, L, L)."""
    length = q.shape[2]
    reach = (len(relative.buckets) + 1) // 2
    far = np.clip(np.arange(1 - length, length), 1 - reach, reach - 1)  # padding may be farther
    near = relative.buckets[far + reach - 1]
    first, last = int(near.min()), int(near.max()) + 1
    places = mx.arange(length)
    rows = mx.array(near - first)[places - places[:, None] + length - 1]  # (L, L)
    shape = (*q.shape[:2], length, length)
    total = mx.zeros(shape, q.dtype)
    if relative.keys is not None:
        scores = q @ relative.keys[:, first:last].swapaxes(-1, -2)
        total = total + mx.take_along_axis(scores, mx.broadcast_to(rows, shape), axis=-1)
    if relative.queries is not None:
        scores = k @ relative.queries[:, first:last].swapaxes(-1, -2)
        turned = mx.take_along_axis(scores, mx.broadcast_to(rows.T, shape), axis=-1)
        total = total + turned.swapaxes(-1, -2)
    return total
