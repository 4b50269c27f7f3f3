"""Softmax attention on NumPy, in pieces whose scores stay in the cache.

A piece is some queries of some heads of some texts of one length, with the keys that they see.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Attention, Floats, Read
from embedsvc.inference.ops.numpy.layout import Run
from embedsvc.inference.ops.table_limits import sees_none

SCORES = 1 << 16
"""Scores of a piece."""
SMALL_PRODUCT = 1 << 18
"""Multiplications of one head's queries with its keys in a piece."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some queries, and the keys and values that they see.

    Axes: texts, heads of keys, heads of queries that share one of those (group), rows, columns.
    """

    q: Floats  # (texts, kv_heads, group, n, size)
    k: Floats  # (texts, kv_heads, 1, m, size)
    v: Floats
    added: tuple[Floats, ...]  # each is added to the scores (texts, kv_heads, group, n, m)
    relative: "_Relative | None"
    scale: float
    context: Floats  # shaped like q; `attend` fills it


def pieces_of(
    q: Floats,
    k: Floats,
    v: Floats,
    context: Floats,
    spec: Attention,
    run: Run,
    read: Read = "all",
) -> Iterator[Piece]:
    """The pieces of a run of texts of one length.

    q, k, v and context are all rows of the batch, as in `Ops.attention`. Raises `IndexError` if the
    bias is made for shorter texts, `EmbeddingFailed` if a token would see none.
    """
    texts, length, seen = run.texts, run.length, run.seen
    if spec.window is not None and seen < length - spec.window:
        raise sees_none(seen, length - spec.window)
    if spec.relative is not None and 2 * length > len(spec.relative.buckets) + 1:
        reach = len(spec.relative.buckets)
        raise IndexError(f"buckets of {reach} distances, for texts of {length} tokens")
    if spec.bias is not None and 2 * length > spec.bias.shape[1] + 1:
        raise IndexError(f"a bias of {spec.bias.shape[1]} distances, for texts of {length} tokens")
    size = q.shape[1] // spec.heads
    asked = _asked(read, length)

    def by_head(x: Floats, first: int, rows: int) -> Floats:
        x = x[first : first + texts * rows]
        return x.reshape(texts, rows, spec.kv_heads, -1, size).transpose(0, 2, 3, 1, 4)

    first = run.row if read == "all" else run.text
    q, context = (by_head(x, first, len(asked)) for x in (q, context))
    k, v = (by_head(x, run.row, length) for x in (k, v))
    back = length if spec.window is None else min(length, spec.window)
    ahead = 0 if spec.causal else back
    reach = min(length, back + 1 + ahead)
    queries = min(len(asked), max(16, SMALL_PRODUCT // (reach * size)))
    group = spec.heads // spec.kv_heads
    at_once = max(1, SCORES // (queries * min(length, reach + queries) * group))
    cuts = [
        _cut(spec, asked[begin : begin + queries], back, ahead, seen)
        for begin in range(0, len(asked), queries)
    ]
    texts_at_once = max(1, at_once // spec.kv_heads)
    for text in range(0, texts, texts_at_once):
        for head in range(0, spec.kv_heads, at_once):
            heads = slice(head, head + at_once)
            part = (slice(text, text + texts_at_once), heads, slice(None))
            for number, cut in enumerate(cuts):
                rows = slice(number * queries, (number + 1) * queries)
                added = () if cut.mask is None else (cut.mask,)
                if cut.bias is not None:
                    added += (cut.bias[heads],)
                yield Piece(
                    q=q[(*part, rows)],
                    k=k[(*part, cut.keys)],
                    v=v[(*part, cut.keys)],
                    added=added,
                    relative=None if cut.relative is None else cut.relative.of(heads),
                    scale=spec.scale,
                    context=context[(*part, rows)],
                )


def _asked(read: Read, length: int) -> range:
    """The queries of a text."""
    match read:
        case "all":
            return range(length)
        case "cls":
            return range(1)
        case "last_token":
            return range(length - 1, length)


def attend(pieces: Iterable[Piece]) -> None:
    """Fill each piece's context."""
    for piece in pieces:
        _attend(piece)


def _attend(piece: Piece) -> None:
    q, keys = piece.q, piece.k.swapaxes(-1, -2)
    if piece.scale != 1:
        q *= np.float32(piece.scale)
    scores = np.matmul(q, keys)  # (..., n, m)
    more = piece.added if piece.relative is None else (*piece.added, *_relative_scores(piece))
    for added in more:
        scores += added
    with np.errstate(over="ignore"):
        np.exp(scores, out=scores)
        sums = np.add.reduce(scores, axis=-1, keepdims=True)
    # A softmax that does not subtract each row's maximum first is the same, and two passes shorter,
    # as long as nothing overflows or vanishes. Scores of real models are far from both.
    if not (sums.min() > 1e-30 and sums.max() < 1e30):
        np.matmul(q, keys, out=scores)
        for added in more:
            scores += added
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        sums = np.add.reduce(scores, axis=-1, keepdims=True)
    np.matmul(scores, piece.v, out=piece.context)
    piece.context[...] /= sums


@dataclass(frozen=True, slots=True)
class _Cut:
    """The keys that at least one of some neighbouring queries sees."""

    keys: slice
    mask: Floats | None  # (n, m): -inf where a query does not see a key; None: all see all
    bias: Floats | None  # (kv_heads, group, n, m)
    relative: "_Relative | None"


def _cut(spec: Attention, queries: range, back: int, ahead: int, seen: int) -> _Cut:
    first, stop = queries.start, queries.stop
    keys = slice(max(0, first - back), min(seen, stop + ahead))
    bias = mask = None
    if spec.bias is not None:
        table = spec.bias.reshape(spec.kv_heads, -1, spec.bias.shape[1])
        bias = _by_distance(table, keys.start - first, stop - first, keys.stop - keys.start)
    if spec.causal or back < max(keys.stop - first, stop - keys.start) - 1:
        distance: NDArray[np.integer[Any]] = (
            np.arange(keys.start, keys.stop) - np.arange(first, stop)[:, None]
        )
        hidden = (distance > ahead) | (distance < -back)
        mask = np.where(hidden, -np.inf, 0).astype(np.float32)
    relative = None
    if spec.relative is not None:
        reach = (len(spec.relative.buckets) + 1) // 2
        near = slice(keys.start - stop + reach, keys.stop - first + reach - 1)
        rows = spec.relative.buckets[near]
        relative = _Relative(
            *(
                None if table is None else table[:, None, rows].swapaxes(-1, -2)
                for table in (spec.relative.keys, spec.relative.queries)
            )
        )
    return _Cut(keys, mask, bias, relative)


@dataclass(frozen=True, slots=True)
class _Relative:
    """The keys and queries of each distance between the queries and keys of a cut, by columns."""

    keys: Floats | None  # (heads, 1, size, n + m - 1)
    queries: Floats | None

    def of(self, heads: slice) -> "_Relative":
        """Those of some heads."""
        keys, queries = (None if x is None else x[heads] for x in (self.keys, self.queries))
        return _Relative(keys, queries)


def _relative_scores(piece: Piece) -> Iterator[Floats]:
    """What `Relative` adds to the scores of a piece, its queries scaled: (..., n, m) each."""
    relative, n, m = piece.relative, piece.q.shape[-2], piece.k.shape[-2]
    if relative is not None and relative.keys is not None:
        scores = np.matmul(piece.q, relative.keys)  # (..., n, n + m - 1)
        *outer, row, step = scores.strides
        from_first = scores[..., n - 1 :]
        yield as_strided(from_first, (*scores.shape[:-1], m), (*outer, row - step, step))
    if relative is not None and relative.queries is not None:
        scores = np.matmul(piece.k, relative.queries)  # (..., m, n + m - 1)
        scores *= np.float32(piece.scale)
        *outer, row, step = scores.strides
        from_first = scores[..., n - 1 :]
        yield as_strided(from_first, (*scores.shape[:-2], n, m), (*outer, -step, row + step))


def _by_distance(table: Floats, start: int, n: int, m: int) -> Floats:
    """The bias of each query i < n and key j < m: table[..., R - 1 + start + j - i].

    The table is (..., 2 R - 1). The result (..., n, m) is a view of it, and bounds are not checked.
    """
    *outer, step = table.strides
    return as_strided(
        table[..., table.shape[-1] // 2 + start :],
        (*table.shape[:-1], n, m),
        (*outer, -step, step),
        writeable=False,
    )
