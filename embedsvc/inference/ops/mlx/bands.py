"""Attention to a window of a long text on MLX: bands of neighbouring queries, each with the few
keys that one of them may see, instead of all keys and a mask that hides most of them.

The bands of all texts are computed together, as if each were a text.
"""

# MLX's stubs leave *args untyped, in reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import mlx.core as mx

from embedsvc.inference.ops.base import Attention
from embedsvc.inference.ops.mlx import dispatch
from embedsvc.inference.ops.mlx.dispatch import at_once, by_rows
from embedsvc.inference.ops.mlx.layout import Bands, PaddedLayout, masked
from embedsvc.inference.ops.mlx.narrow_heads import FUSED_SIZES

LEAST_BAND = 64
"""The fewest queries of a band: what Apple's kernels compute at a time."""


def band_size(spec: Attention, texts: int, length: int) -> int | None:
    """The queries of a band, which divide texts of that length; None if bands gain too little.

    A band has the queries of a window, which balances what is computed for nothing with how often a
    key is read, or fewer, down to a quarter, so that its keys are no more than half of a text's.

    >>> spec = Attention(heads=1, kv_heads=1, window=64)
    >>> band_size(spec, texts=1, length=8192)
    128
    >>> band_size(spec, texts=1, length=256) is None
    True
    """
    if spec.window is None or spec.bias is not None:
        return None
    least, most = max(LEAST_BAND, spec.window // 2), max(LEAST_BAND, 2 * spec.window)
    band = length & -length  # the largest power of two that divides it
    while band > most:
        band //= 2
    while band >= least:
        keys = _keys(spec, band)
        if 2 * keys <= length and texts * length * keys <= dispatch.MOST_NUMBERS:
            return band
        band //= 2
    return None


def attend_in_bands(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout, band: int
) -> mx.array:
    """`Ops.attention` for a window."""
    size = q.shape[1] // spec.heads
    bands = layout.bands.get(spec)
    if bands is None:
        bands = layout.bands[spec] = _cut(spec, layout, band)

    def attend(q: mx.array, keys: mx.array, mask: mx.array) -> mx.array:
        some_k, some_v = (
            x[keys].reshape(*keys.shape, -1, size).transpose(0, 2, 1, 3) for x in (k, v)
        )
        context = mx.fast.scaled_dot_product_attention(
            q.transpose(0, 2, 1, 3), some_k, some_v, scale=spec.scale, mask=mask
        )
        return context.transpose(0, 2, 1, 3)  # (bands, band, heads, size)

    scores = spec.heads * band * _keys(spec, band)  # of a band
    most = at_once(4 * size * scores, 0 if size in FUSED_SIZES else scores)
    by_band = q.reshape(-1, band, spec.heads, size)
    return by_rows(attend, (by_band, bands.keys, bands.mask), most).reshape(layout.cells, -1)


def _keys(spec: Attention, band: int) -> int:
    """The keys that queries of a band may see."""
    window = spec.window or 0
    return window + band + (0 if spec.causal else window)


def _cut(spec: Attention, layout: PaddedLayout, band: int) -> Bands:
    """The keys of each band, and what is added to its scores."""
    first = mx.arange(0, layout.cells, band)[:, None]  # the row of each band's first query
    offsets = mx.arange(_keys(spec, band)) - (spec.window or 0)  # of keys from there
    rows = first + offsets
    keys = mx.clip(rows, 0, layout.cells - 1)  # (bands, m)
    own = rows // layout.length == first // layout.length  # of the same text
    own = own & layout.seen.reshape(-1)[keys]
    distance = offsets - mx.arange(band)[:, None]  # (n, m)
    ahead = 0 if spec.causal else spec.window or 0
    near = (distance <= ahead) & (distance >= -(spec.window or 0))
    # Padding must see something too, itself: else it becomes NaN, and NaN passes every mask.
    padding = ~layout.mask.reshape(-1, 1, band, 1)
    seen = (own[:, None, None] & near) | (padding & (distance == 0))  # (bands, 1, n, m)
    return Bands(keys, masked(seen, layout.added.dtype))
