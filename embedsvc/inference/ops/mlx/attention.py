"""Attention on MLX, over texts padded to one length."""

# MLX's stubs leave *args untyped, in reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx

from embedsvc.inference.ops.base import Attention
from embedsvc.inference.ops.mlx.layout import PaddedLayout, masked

BIASED_SCORES = 1 << 26
"""Scores that a mask with a bias may have. If there are more, queries are done some at a time."""


def attend(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """`Ops.attention` by MLX's fused attention, some queries at a time if the mask is large."""
    q, k, v = _by_head(q, k, v, spec, layout)
    length = layout.length
    if spec.causal and _everything(spec, layout):
        mask = "causal"  # padding is behind all tokens, where no query looks
        return _by_row(mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale, mask=mask))
    scores = length * length * (1 if spec.bias is None else layout.texts * spec.heads)
    if scores <= BIASED_SCORES or _everything(spec, layout):
        mask = _whole_mask(spec, layout)
        return _by_row(mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale, mask=mask))
    step = max(1, BIASED_SCORES * length // scores)
    parts: list[mx.array] = []
    for first in range(0, length, step):
        last = min(first + step, length)
        mask = _mask(spec, layout, first, last)
        some = q[:, :, first:last]
        parts.append(mx.fast.scaled_dot_product_attention(some, k, v, scale=spec.scale, mask=mask))
    return _by_row(mx.concatenate(parts, axis=2))


def attend_plainly(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """`Ops.attention` by products and a softmax, which MLX need not plan for each new shape."""
    q, k, v = _by_head(q, k, v, spec, layout)
    if spec.kv_heads < spec.heads:
        k, v = (mx.repeat(x, spec.heads // spec.kv_heads, axis=1) for x in (k, v))
    scores = (q * spec.scale) @ k.swapaxes(-1, -2) + _whole_mask(spec, layout)
    return _by_row(mx.softmax(scores, axis=-1, precise=True) @ v)


def _by_head(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> tuple[mx.array, ...]:
    """Rows of heads side by side as (B, heads, L, size) each."""
    size = q.shape[1] // spec.heads
    return tuple(
        x.reshape(layout.texts, layout.length, -1, size).transpose(0, 2, 1, 3) for x in (q, k, v)
    )


def _by_row(context: mx.array) -> mx.array:
    """(B, heads, L, size) as rows of heads side by side."""
    texts, heads, length, size = context.shape
    return context.transpose(0, 2, 1, 3).reshape(texts * length, heads * size)


def _everything(spec: Attention, layout: PaddedLayout) -> bool:
    """Whether a query sees every token of its text; if causal, all those up to itself."""
    return spec.bias is None and (spec.window is None or spec.window >= layout.length - 1)


def _whole_mask(spec: Attention, layout: PaddedLayout) -> mx.array:
    """What is added to the scores of all queries, made once for all layers of a kind."""
    if not spec.causal and _everything(spec, layout):
        return layout.added
    mask = layout.masks.get(spec)
    if mask is None:
        mask = layout.masks[spec] = _mask(spec, layout, 0, layout.length)
    return mask


def _mask(spec: Attention, layout: PaddedLayout, first: int, last: int) -> mx.array:
    """What is added to the scores of queries first..last-1: (B, heads or 1, n, L)."""
    distance = mx.arange(layout.length) - mx.arange(first, last)[:, None]  # (n, L)
    seen = mx.ones_like(distance).astype(mx.bool_)
    if spec.causal:
        seen = distance <= 0
    if spec.window is not None:
        seen = seen & (mx.abs(distance) <= spec.window)
    # Padding must see something too, itself: else it becomes NaN, and NaN passes every mask.
    seen = (seen & layout.mask[:, None, None]) | (distance == 0)
    bias = mx.array(0.0)
    if spec.bias is not None:
        furthest = (spec.bias.shape[1] - 1) // 2
        bias = spec.bias[:, mx.clip(distance, -furthest, furthest) + furthest]
    return masked(seen, bias, layout.added.dtype)
