"""Texts padded to one length on MLX: the grid they lie in, and attention over it."""

# MLX's stubs leave *args untyped, in eval, reshape and transpose among others.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Attention, Batch
from embedsvc.inference.ops.table_limits import IndexRange
from embedsvc.texts.item import TokenIds

LENGTH_STEP = 16
"""Texts are padded to a multiple of this; long ones to a multiple of more."""
BIASED_SCORES = 1 << 26
"""Scores that a mask with a bias may have. If there are more, queries are done some at a time."""


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """The grid (B, L) of a batch, whose cells are the rows (B * L,) of the pass."""

    texts: int
    length: int
    grids: tuple[mx.array, ...]  # (B, L) each: ids, and types if there are any; -1 is padding
    mask: mx.array  # (B, L), True on tokens
    lengths: mx.array  # (B,)
    added: mx.array  # (B, 1, 1, L), added to scores: 0 on tokens, the lowest number on padding
    indices: IndexRange | None = None  # of the batch, on the host; None within `mx.compile`
    sizes: tuple[int, ...] = ()  # on the host: the lengths of the texts, without rows of padding
    masks: dict[Attention, mx.array] = field(default_factory=dict[Attention, mx.array])
    """The masks of `attend`, made by the first layer of each kind and used by those behind it."""


def grid_shape(texts: int, longest: int) -> tuple[int, int]:
    """The rows and the length that a batch is padded to.

    There are few shapes, since MLX has to compile or plan each new one, on CUDA for up to a second.

    >>> grid_shape(3, 17)
    (4, 32)
    """
    step = max(LENGTH_STEP, (1 << (longest - 1).bit_length()) // 16)
    return 1 << (texts - 1).bit_length(), -(-longest // step) * step


def fill_grid(texts: Sequence[TokenIds]) -> NDArray[np.int32]:
    """The ids of texts, or their types, padded with -1; rows without a text have one token, 0."""
    lengths = np.array([len(text) for text in texts])
    rows, length = grid_shape(len(texts), int(lengths.max()))
    grid = np.full((rows, length), -1, dtype=np.int32)
    grid[:, 0] = 0
    grid[: len(texts)][np.arange(length) < lengths[:, None]] = np.concatenate(texts)
    return grid


def lay_out(
    grids: tuple[mx.array, ...],
    dtype: mx.Dtype,
    indices: IndexRange | None = None,
    sizes: tuple[int, ...] = (),
) -> Batch:
    """The batch of filled grids (B, L): of ids, and of types if there are any."""
    texts, length = grids[0].shape
    mask = grids[0] >= 0
    positions = mx.where(mask, mx.arange(length), 0)  # a model may have no position for padding
    added = _added(mask, mx.array(0.0), dtype)[:, None, None]
    layout = PaddedLayout(texts, length, grids, mask, mask.sum(axis=1), added, indices, sizes)
    ids, *types = (mx.maximum(grid, 0).reshape(-1) for grid in grids)
    return Batch(ids, positions.reshape(-1), layout, *types)


def attend(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """MLX's fused attention of (B, heads, L, size), some queries at a time if the mask is large."""
    length = layout.length
    if spec.causal and _everything(spec, layout):
        mask = "causal"  # padding is behind all tokens, where no query looks
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale, mask=mask)
    scores = length * length * (1 if spec.bias is None else layout.texts * spec.heads)
    if scores <= BIASED_SCORES or _everything(spec, layout):
        mask = _whole_mask(spec, layout)
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale, mask=mask)
    step = max(1, BIASED_SCORES * length // scores)
    parts: list[mx.array] = []
    for first in range(0, length, step):
        last = min(first + step, length)
        mask = _mask(spec, layout, first, last)
        some = q[:, :, first:last]
        parts.append(mx.fast.scaled_dot_product_attention(some, k, v, scale=spec.scale, mask=mask))
    return mx.concatenate(parts, axis=2)


def attend_plainly(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """Attention by products and a softmax, which MLX need not plan for each new shape."""
    if spec.kv_heads < spec.heads:
        k, v = (mx.repeat(x, spec.heads // spec.kv_heads, axis=1) for x in (k, v))
    scores = (q * spec.scale) @ k.swapaxes(-1, -2) + _whole_mask(spec, layout)
    return mx.softmax(scores, axis=-1, precise=True) @ v


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
    return _added(seen, bias, layout.added.dtype)


def _added(seen: mx.array, bias: mx.array, dtype: mx.Dtype) -> mx.array:
    """`bias` where a token is seen, elsewhere the lowest number of `dtype`.

    It is no boolean mask, because CUDA would write that out for every head and layer. It is not
    -inf either, because some fused attention makes NaN of a whole block of such scores.
    """
    return mx.where(seen, bias, mx.finfo(dtype).min).astype(dtype)
