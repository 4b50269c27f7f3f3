"""Texts padded to one length on MLX: the grid they lie in."""

# MLX's stubs leave *args untyped, in eval, reshape and transpose among others.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Attention, Batch
from embedsvc.inference.ops.table_limits import IndexRange
from embedsvc.texts.item import TokenIds

UNSEEN, PADDING = 1 << 29, 1 << 30
"""Bits that mark cells of a grid: a token that nothing attends to; no token, with the id 0."""
LENGTH_STEP = 16
"""Texts are padded to a multiple of this; long ones to a multiple of more."""


class Bands(NamedTuple):
    """The queries of a batch in bands of neighbours, for attention to a window."""

    keys: mx.array  # (bands, m): the rows whose keys a band may see
    mask: mx.array  # (bands, 1, n, m), added to scores


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """The grid (B, L) of a batch, whose cells are the rows (B * L,) of the pass."""

    texts: int
    length: int
    grids: tuple[mx.array, ...]  # (B, L) each: ids, and types if there are any; see `fill_grid`
    mask: mx.array  # (B, L), True on tokens
    seen: mx.array  # (B, L), True on tokens that are attended to
    lengths: mx.array  # (B,)
    last: mx.array  # (B,), the row of each text's last token
    added: mx.array  # (B, 1, 1, L), added to scores: 0 where `seen`, else the lowest number
    indices: IndexRange | None = None  # of the batch, on the host; None within `mx.compile`
    sizes: tuple[int, ...] = ()  # on the host: the lengths of the texts, without rows of padding
    masks: dict[Attention, mx.array] = field(default_factory=dict[Attention, mx.array])
    """The masks of `attend`, made by the first layer of each kind and used by those behind it."""
    bands: dict[Attention, Bands] = field(default_factory=dict[Attention, Bands])
    """The same for `attend_in_bands`."""

    @property
    def cells(self) -> int:
        """Rows of the pass, those of padding included."""
        return self.texts * self.length

    @property
    def traced(self) -> bool:
        """Whether the pass is only written down, by `mx.compile`, so that nothing can be run."""
        return self.indices is None


def grid_shape(texts: int, longest: int) -> tuple[int, int]:
    """The rows and the length that a batch is padded to.

    There are few shapes, since MLX has to compile or plan each new one, on CUDA for up to a second.

    >>> grid_shape(3, 17)
    (4, 32)
    """
    step = max(LENGTH_STEP, (1 << (longest - 1).bit_length()) // 16)
    return 1 << (texts - 1).bit_length(), -(-longest // step) * step


def fill_grid(texts: Sequence[TokenIds], seen: Sequence[int] | None = None) -> NDArray[np.int32]:
    """The ids of texts, or their types, padded; rows without a text have one token, 0.

    Padding, and tokens behind the first `seen` of their text, are marked by a bit.
    """
    lengths = np.array([len(text) for text in texts])
    rows, length = grid_shape(len(texts), int(lengths.max()))
    grid = np.full((rows, length), PADDING, dtype=np.int32)
    grid[:, 0] = 0
    grid[: len(texts)][np.arange(length) < lengths[:, None]] = np.concatenate(texts)
    if seen is not None:
        unseen = np.arange(length) >= np.array(seen)[:, None]
        grid[: len(texts)][unseen] |= UNSEEN
    return grid


def lay_out(
    grids: tuple[mx.array, ...],
    dtype: mx.Dtype,
    indices: IndexRange | None = None,
    sizes: tuple[int, ...] = (),
) -> Batch:
    """The batch of filled grids (B, L): of ids, and of types if there are any."""
    texts, length = grids[0].shape
    mask, seen = grids[0] < PADDING, grids[0] < UNSEEN
    positions = mx.where(mask, mx.arange(length), 0)  # a model may have no position for padding
    added = masked(seen, dtype)[:, None, None]
    lengths = mask.sum(axis=1)
    last = mx.arange(-1, texts * length - 1, length) + lengths
    layout = PaddedLayout(texts, length, grids, mask, seen, lengths, last, added, indices, sizes)
    ids, *types = ((grid & (UNSEEN - 1)).reshape(-1) for grid in grids)
    return Batch(ids, positions.reshape(-1), layout, types[0] if types else None)


def masked(seen: mx.array, dtype: mx.Dtype, bias: mx.array | None = None) -> mx.array:
    """What is added to scores: the bias where a token is seen, elsewhere the lowest number.

    It is no boolean mask, because CUDA would write that out for every head and layer. It is not
    -inf either, because some fused attention makes NaN of a whole block of such scores.
    """
    lowest = mx.array(mx.finfo(dtype).min, dtype=dtype)
    return mx.where(seen, mx.array(0, dtype=dtype) if bias is None else bias, lowest)
