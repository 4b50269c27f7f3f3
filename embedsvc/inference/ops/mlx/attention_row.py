"""Attention on MLX of one query of each text: its first or its last."""

# MLX's stubs leave *args untyped, in reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx

from embedsvc.inference.ops.base import Attention, Read
from embedsvc.inference.ops.mlx.layout import PaddedLayout, masked


def attend_row(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout, read: Read
) -> mx.array:
    """`Ops.attention` where one row of each text is read: q (B, heads * size)."""
    size = q.shape[1] // spec.heads
    k, v = (x.reshape(layout.texts, layout.length, -1, size).transpose(0, 2, 1, 3) for x in (k, v))
    context = mx.fast.scaled_dot_product_attention(
        q.reshape(layout.texts, spec.heads, 1, size),
        k,
        v,
        scale=spec.scale,
        mask=_mask(spec, layout, read),
    )
    return context.reshape(layout.texts, -1)


def _mask(spec: Attention, layout: PaddedLayout, read: Read) -> mx.array:
    """What is added to the scores of each text's query: (B, heads or 1, 1, L)."""
    sees_all = not spec.causal or read == "last_token"
    if sees_all and spec.window is None and spec.bias is None:
        return layout.added
    query = mx.zeros_like(layout.lengths) if read == "cls" else layout.lengths - 1
    distance = mx.arange(layout.length) - query[:, None]  # (B, L)
    seen = layout.seen
    if spec.causal:
        seen = seen & (distance <= 0)
    if spec.window is not None:
        seen = seen & (mx.abs(distance) <= spec.window)
    bias = None
    if spec.bias is not None:
        furthest = (spec.bias.shape[1] - 1) // 2
        places = mx.clip(distance, -furthest, furthest) + furthest
        bias = spec.bias[:, places].swapaxes(0, 1)[:, :, None]  # (B, heads, 1, L)
    return masked(seen[:, None, None], layout.added.dtype, bias)
