"""A mixture of experts on MLX."""

# MLX's stubs leave *args untyped, in reshape among others.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable

import mlx.core as mx

from embedsvc.inference.ops.base import Experts, check_chosen
from embedsvc.inference.ops.mlx.dispatch import at_once, by_rows


def mix(
    x: mx.array,
    scores: mx.array,
    chosen: int,
    layer: Experts,
    activation: Callable[[mx.array], mx.array],
    dtype: mx.Dtype,
) -> mx.array:
    """`Ops.experts`, computed in that dtype."""
    check_chosen(chosen, scores.shape[1], layer)
    up, down = layer.up.astype(dtype), layer.down.astype(dtype)

    def some(x: mx.array, scores: mx.array) -> mx.array:
        weights = mx.softmax(scores.astype(mx.float32), axis=-1)
        best = mx.argpartition(-weights, chosen - 1, axis=-1)[:, :chosen]
        weights = mx.take_along_axis(weights, best, axis=-1)[..., None]  # (N, chosen, 1)
        # Rows are put in the order of their experts, so that each expert's weights are read once.
        best = best.reshape(-1)
        order = mx.argsort(best)
        rows = x[order // chosen][:, None].astype(dtype)  # (N * chosen, 1, D)
        inner = activation(mx.gather_mm(rows, up, None, best[order], sorted_indices=True))
        out = mx.gather_mm(inner, down, None, best[order], sorted_indices=True)
        out = out[mx.argsort(order)].reshape(-1, chosen, x.shape[1])
        return (out * weights).sum(axis=1).astype(x.dtype)

    _, width, inner = layer.up.shape
    return by_rows(some, (x, scores), at_once(2 * chosen * width * inner))
