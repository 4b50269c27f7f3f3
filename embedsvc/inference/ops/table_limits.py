"""Checks that the tables of a pass have a row for each index of a batch.

NumPy takes -1 for a table's last row, and a GPU reads beside a table without an error. So the first
run of a pass notes which tables it looks up, and each batch is checked against them before it runs.
The kernels in C do the same in `check_batch.c`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from embedsvc.errors import EmbeddingFailed
from embedsvc.inference.ops.base import Array, Batch, CompiledPass, ForwardPass, Ops, Read
from embedsvc.texts.item import TokenIds


class IndexRange(NamedTuple):
    """The indices of a batch."""

    lowest: int
    """Its lowest id."""
    highest: int
    """Its highest id."""
    longest: int
    """Tokens of its longest text."""
    types: tuple[int, int] = (0, 0)
    """The lowest and the highest type of its tokens."""


@dataclass(slots=True)
class Limits:
    """Rows of the smallest table for each kind of index; None where no table is looked up by it."""

    ids: int | None = None
    positions: int | None = None
    types: int | None = None

    def check(self, indices: IndexRange) -> None:
        """Raises `EmbeddingFailed` that names an index without a row, and the rows there are."""
        if self.ids is not None:
            for token in (indices.lowest, indices.highest):
                if not 0 <= token < self.ids:
                    raise no_id(token, self.ids)
        if self.positions is not None and indices.longest > self.positions:
            raise too_long(indices.longest, self.positions)
        if self.types is not None:
            for type_ in indices.types:
                if not 0 <= type_ < self.types:
                    raise no_type(type_, self.types)


def check_texts(
    texts: Sequence[TokenIds],
    types: Sequence[TokenIds] | None = None,
    seen: Sequence[int] | None = None,
) -> None:
    """Raises `ValueError` unless every text has one token or more that is seen, and ids and types
    are int32."""
    if types is not None and list(map(np.shape, types)) != list(map(np.shape, texts)):
        raise ValueError("every token of a batch has a type, or none has")
    if types is not None and any(type_.dtype != np.int32 for type_ in types):
        raise ValueError("types of tokens are int32")
    if not texts:
        raise ValueError("a batch has one text or more, not 0")
    if seen is not None and (
        len(seen) != len(texts)
        or not all(1 <= n <= len(text) for n, text in zip(seen, texts, strict=True))
    ):
        raise ValueError("of every text of a batch one token or more is seen, and no more than all")
    for number, text in enumerate(texts):
        if text.dtype != np.int32 or text.ndim != 1 or not len(text):
            raise ValueError(
                f"text {number} of a batch is {text.dtype} {text.shape}, not int32 (tokens,)"
            )


def no_id(token: int, rows: int) -> EmbeddingFailed:
    """The error that a token has no row in the model's table."""
    return EmbeddingFailed(f"The model has no token {token}: its table has {rows}, from 0 on.")


def no_type(type_: int, rows: int) -> EmbeddingFailed:
    """The error that a type of tokens has no row in the model's table."""
    return EmbeddingFailed(f"The model has no type {type_} of tokens: its table has {rows}.")


def too_long(tokens: int, positions: int) -> EmbeddingFailed:
    """The error that a text has more tokens than the model's table has positions."""
    return EmbeddingFailed(
        f"A text of {tokens} tokens is longer than the model's {positions} positions."
    )


def sees_none(seen: int, least: int) -> EmbeddingFailed:
    """The error that tokens are attended to which lie beyond the window of others."""
    return EmbeddingFailed(
        f"Of a text's tokens {seen} are attended to, and its last would see none: {least} are "
        "needed."
    )


class CheckedPass:
    """A pass that refuses a batch with an index that a table has no row for."""

    def __init__(
        self,
        ops: Ops,
        function: ForwardPass,
        run: CompiledPass,
        range_of: Callable[[Batch], IndexRange],
    ) -> None:
        """`run` is the fastest form of the pass `function`, used from the second run on."""
        self._ops = ops
        self._function = function
        self._run = run
        self._range_of = range_of
        self._limits: Limits | None = None

    def __call__(self, batch: Batch) -> Array:
        indices = self._range_of(batch)
        if self._limits is not None:
            self._limits.check(indices)
            return self._run(batch)
        noting: Any = _NotingOps(self._ops, batch, indices)
        try:
            result = self._function(noting, batch)
        except IndexError:  # NumPy's own, which names no limit
            noting.limits.check(indices)
            raise
        noting.limits.check(indices)  # before the result is used, and before MLX computes it
        self._limits = noting.limits
        return result


class _NotingOps:
    """Operations that note which tables a batch's ids, positions and types are looked up in."""

    def __init__(self, ops: Ops, batch: Batch, indices: IndexRange) -> None:
        self.limits = Limits()
        self._ops = ops
        self._batch = batch
        self._indices = indices
        self._wholes: dict[int, Array] = {}
        """What the rows that are worked on now are some of, by the rows' identity."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def rows(self, function: Callable[..., Any], *inputs: Array) -> Any:
        def noting(*parts: Array) -> Any:
            self._wholes = dict(zip(map(id, parts), inputs, strict=True))
            return function(*parts)

        result = self._ops.rows(noting, *inputs)
        self._wholes = {}
        return result

    def embedding(self, table: Array, indices: Array) -> Array:
        self.looked_up(table.shape[0], indices)
        return self._ops.embedding(table, indices)

    def rope(self, x: Array, table: Array, positions: Array) -> Array:
        self.looked_up(table.shape[0], positions)
        return self._ops.rope(x, table, positions)

    def attention(
        self, q: Array, k: Array, v: Array, spec: Any, layout: Any, read: Read = "all"
    ) -> Array:
        if spec.bias is not None:
            self.looked_up((spec.bias.shape[1] + 1) // 2, self._batch.positions)
        if spec.relative is not None:
            self.looked_up((len(spec.relative.buckets) + 1) // 2, self._batch.positions)
        self.limits.check(self._indices)  # MLX computes parts of a long text at once
        return self._ops.attention(q, k, v, spec, layout, read)

    def looked_up(self, rows: int, indices: Array) -> None:
        limits, indices = self.limits, self._wholes.get(id(indices), indices)
        if indices is self._batch.ids:
            limits.ids = rows if limits.ids is None else min(rows, limits.ids)
        elif indices is self._batch.positions:
            limits.positions = rows if limits.positions is None else min(rows, limits.positions)
        elif indices is self._batch.types:
            limits.types = rows if limits.types is None else min(rows, limits.types)
