"""Attention on MLX, over texts padded to one length.

Long texts are done some queries at a time, with the keys that at least one of those may see.
"""

# MLX's stubs leave *args untyped, in reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx

from embedsvc.inference.ops.base import Attention
from embedsvc.inference.ops.mlx.bands import attend_in_bands, band_size
from embedsvc.inference.ops.mlx.disentangled import relative_scores
from embedsvc.inference.ops.mlx.dispatch import at_once, submit
from embedsvc.inference.ops.mlx.layout import PaddedLayout, masked
from embedsvc.inference.ops.mlx.narrow_heads import FUSED_SIZES


def attend(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """`Ops.attention` by MLX's fused attention."""
    length = layout.length
    band = band_size(spec, layout.texts, length)
    if band is not None:
        return attend_in_bands(q, k, v, spec, layout, band)
    q, k, v = _by_head(q, k, v, spec, layout)
    step = _queries_at_once(spec, layout, q.shape[-1])
    if step >= length:
        return _some_queries(q, k, v, spec, layout, 0, length).reshape(layout.cells, -1)
    parts: list[mx.array] = []
    for first in range(0, length, step):
        last = min(first + step, length)
        parts.append(_some_queries(q, k, v, spec, layout, first, last))
        if not layout.traced:
            submit(parts[-1])
    return mx.concatenate(parts, axis=1).reshape(layout.cells, -1)


def attend_plainly(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """`Ops.attention` by products and a softmax, which MLX need not plan for each new shape."""
    q, k, v = _by_head(q, k, v, spec, layout)
    if spec.kv_heads < spec.heads:
        k, v = (mx.repeat(x, spec.heads // spec.kv_heads, axis=1) for x in (k, v))
    q = q * spec.scale
    scores = q @ k.swapaxes(-1, -2)
    if spec.relative is not None:
        scores = scores + relative_scores(q, k * spec.scale, spec.relative)
    scores = scores + _whole_mask(spec, layout)
    context = mx.softmax(scores, axis=-1, precise=True) @ v
    return context.transpose(0, 2, 1, 3).reshape(layout.cells, -1)


def _by_head(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> tuple[mx.array, ...]:
    """Rows of heads side by side as (B, heads, L, size) each."""
    size = q.shape[1] // spec.heads
    return tuple(
        x.reshape(layout.texts, layout.length, -1, size).transpose(0, 2, 1, 3) for x in (q, k, v)
    )


def _queries_at_once(spec: Attention, layout: PaddedLayout, size: int) -> int:
    """Neighbouring queries of each text that one kernel may take."""
    seen = layout.texts * layout.length  # keys of one query of each text
    numbers = 0
    if size not in FUSED_SIZES:
        numbers = seen * spec.heads  # scores
    elif not _sees_all(spec, layout):
        numbers = seen if spec.bias is None else seen * spec.heads  # of the mask
    return at_once(4 * size * spec.heads * seen, numbers)


def _some_queries(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    spec: Attention,
    layout: PaddedLayout,
    first: int,
    last: int,
) -> mx.array:
    """The contexts of queries first..last-1 of each text: (B, n, heads, size)."""
    far = layout.length if spec.window is None else spec.window
    start, stop = max(0, first - far), last if spec.causal else min(layout.length, last + far)
    if spec.causal and _sees_all(spec, layout):
        mask = "causal"  # padding is behind all tokens, where no query looks
    elif last - first == layout.length:
        mask = _whole_mask(spec, layout)
    elif _sees_all(spec, layout):
        mask = layout.added
    else:
        mask = _mask(spec, layout, range(first, last), range(start, stop))
    context = mx.fast.scaled_dot_product_attention(
        q[:, :, first:last],
        k[:, :, start:stop],
        v[:, :, start:stop],
        scale=spec.scale,
        mask=mask,
    )
    return context.transpose(0, 2, 1, 3)


def _sees_all(spec: Attention, layout: PaddedLayout) -> bool:
    """Whether a query sees every token of its text; if causal, all those up to itself."""
    return spec.bias is None and (spec.window is None or spec.window >= layout.length - 1)


def _whole_mask(spec: Attention, layout: PaddedLayout) -> mx.array:
    """What is added to the scores of all queries, made once for all layers of a kind."""
    if not spec.causal and _sees_all(spec, layout):
        return layout.added
    mask = layout.masks.get(spec)
    if mask is None:
        every = range(layout.length)
        mask = layout.masks[spec] = _mask(spec, layout, every, every)
    return mask


def _mask(spec: Attention, layout: PaddedLayout, queries: range, keys: range) -> mx.array:
    """What is added to the scores of those queries and keys: (B, heads or 1, n, m)."""
    distance = _numbers(keys) - _numbers(queries)[:, None]  # (n, m)
    seen = layout.seen[:, None, None, keys.start : keys.stop]
    if spec.causal:
        seen = seen & (distance <= 0)
    if spec.window is not None:
        seen = seen & (mx.abs(distance) <= spec.window)
    # Padding must see something too, itself: else it becomes NaN, and NaN passes every mask.
    padding = ~layout.mask[:, None, queries.start : queries.stop, None]
    seen = seen | (padding & (distance == 0))
    if spec.bias is None:
        return masked(seen, layout.added.dtype)
    furthest = (spec.bias.shape[1] - 1) // 2
    bias = spec.bias[:, mx.clip(distance, -furthest, furthest) + furthest]
    return masked(seen, layout.added.dtype, bias)


def _numbers(of: range) -> mx.array:
    return mx.arange(of.start, of.stop)
