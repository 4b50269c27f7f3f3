"""Pooling on MLX: a row for each text, from rows padded to one length."""

# MLX's stubs leave *args untyped, in reshape among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.ops.mlx.layout import PaddedLayout


def pool(hidden: mx.array, layout: PaddedLayout, pooling: Pooling) -> mx.array:
    """Each text's rows (N, D) as one: (B, D)."""
    grid = hidden.reshape(layout.texts, layout.length, -1)  # (B, L, D)
    mask, lengths = layout.mask[..., None], layout.lengths[:, None]
    match pooling:
        case "cls":
            return grid[:, 0]
        case "last_token":
            return hidden[layout.last]
        case "max":
            return mx.where(mask, grid, -float("inf")).max(axis=1)
        case "mean":
            divisors = lengths
        case "mean_sqrt_len":
            divisors = mx.sqrt(lengths)
        case "weighted_mean":
            weights = mx.arange(1, layout.length + 1, dtype=mx.float32)
            grid = grid.astype(mx.float32) * weights[:, None]
            divisors = lengths * (lengths + 1) / 2
    return mx.where(mask, grid.astype(mx.float32), 0.0).sum(axis=1) / divisors
