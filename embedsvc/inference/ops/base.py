"""The operations that every backend offers, and the batch that they work on.

Tokens are rows. A batch of B texts has N rows: ids (N,), positions (N,), hidden (N, D). Each
backend lays texts out in those rows in its own way: NumPy and the kernels end to end, MLX padded to
one length. Only `attention`, `pool` and `split` know how, through the batch's layout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.hardware import Hardware
from embedsvc.inference.ops.layers import Array, Attention, Experts, Linear, Norm
from embedsvc.inference.ops.tuning import Tuning
from embedsvc.texts.item import TokenIds

T = TypeVar("T")
Floats = NDArray[np.float32]
Read = Literal["all", "cls", "last_token"]
"""Which rows of each text are read: all of them, its first, or its last."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs that a pass is prepared for."""

    longest: int
    """Tokens of the longest text, or pair of texts."""
    pairs: bool = False
    """Whether tokens have types: 0 in the first text of a pair, 1 in the second."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of B texts, laid out by `Ops.batch`."""

    ids: Array  # (N,)
    positions: Array  # (N,), from 0 within each text; 0 where a backend pads
    layout: Any  # the backend's own
    types: Array | None = None  # (N,): 1 in the second text of a pair; None if no pass needs them
    read: Read = "all"  # the rows whose hidden states are wanted


class ForwardPass(Protocol):
    """A pass as an architecture and a head write it: rows (B, n) or (N, n) for a batch; of several
    heads, a tuple of such arrays."""

    def __call__(self, ops: "Ops", batch: Batch, /) -> Array: ...


CompiledPass = Callable[[Batch], Array]
"""The same pass on one backend."""


class Ops(Hardware, Protocol):
    """The operations of a backend.

    An operation of the forward pass may overwrite its first argument, so use its result.
    `embedding`, `linear`, `experts` and `pool` do not.
    """

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any] | Quantized) -> Array:
        """The array on the device, in the backend's dtype."""
        ...

    def table(self, value: NDArray[Any] | Quantized) -> Array:
        """A table of many rows on the device, which `embedding` alone reads."""
        ...

    def float32(self, value: NDArray[Any]) -> Array:
        """The array on the device, in float32 whatever the backend's dtype."""
        ...

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        """A layer from its checkpoint's weight (out, in) and bias (out,)."""
        ...

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        """Experts from weights `up` (E, inner, D) and `down` (E, D, inner)."""
        ...

    def tune(self, tuning: Tuning) -> None:
        """Try what makes passes faster on some hardware only, and keep what does so here."""
        ...

    def release(self) -> None:
        """Give back memory that was freed and is kept for reuse."""
        ...

    def compiled(self, function: ForwardPass) -> CompiledPass:
        """The pass in the fastest form that the backend has.

        The pass raises `EmbeddingFailed` for a batch with an id, a position or a type that a table
        has no row for, and then reads no table.
        """
        ...

    def begin(self, value: Array) -> Array:
        """Have the hardware begin to compute the array, in float32."""
        ...

    # --- batches -------------------------------------------------------------------------------

    def batch(
        self,
        texts: Sequence[TokenIds],
        types: Sequence[TokenIds] | None = None,
        seen: Sequence[int] | None = None,
    ) -> Batch:
        """The batch of texts, each of one token or more.

        Equal lengths next to each other run fastest. `types` has the type of each token, for passes
        that look types up. Tokens attend to the first `seen` of their text; None: to all. Raises
        `ValueError` unless ids and types are int32, as many of each, and `seen` are there.
        """
        ...

    def split(self, rows: NDArray[np.float32], layout: Any) -> list[NDArray[np.float32]]:
        """The rows of tokens (N, D), on the host, by text: (L, D) each, without padding."""
        ...

    def to_numpy(self, value: Array) -> NDArray[np.float32]:
        """The array on the host, computed; any thread may wait for one that `begin` gave."""
        ...

    def maxsim(self, query: Floats, documents: Sequence[NDArray[np.float16]]) -> Floats:
        """The scores (B,) of documents by the vectors (n, d) of a query's tokens.

        A score is the sum over the query's tokens of the largest product of their vector with one
        of the document's, (m, d) each, of which there is one or more and all are finite.
        """
        ...

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., T], *inputs: Array) -> T:
        """`function(*inputs)`, for a function that treats every row by itself.

        `function` returns an array or a tuple of arrays. The backend may call it several times,
        with some rows of each input (n, ...).
        """
        ...

    def copy(self, x: Array) -> Array:
        """A copy for an operation that may overwrite it, where x itself is needed later."""
        ...

    def embedding(self, table: Array, indices: Array) -> Array:
        """Rows of `table` (V, D) at `indices` (N,), a batch's ids, positions or types: (N, D)."""
        ...

    def looked_up(self, rows: int, indices: Array) -> None:
        """Say that the pass looks up a table of so many rows at `indices` without `embedding`."""
        ...

    def add(self, x: Array, y: Array) -> Array:
        """x + y."""
        ...

    def multiply(self, x: Array, y: Array) -> Array:
        """x * y."""
        ...

    def linear(self, x: Array, layer: Linear) -> Array:
        """x (N, in) through the layer: (N, out)."""
        ...

    def experts(self, x: Array, scores: Array, chosen: int, layer: Experts) -> Array:
        """x (N, D) through the experts that each row's scores (N, E) choose: (N, D).

        Those are the `chosen` ones with the highest scores. Each gives down(gelu(up(x))); the sum
        is weighted by the softmax of all scores. Raises `ValueError` if there are too few experts.
        """
        ...

    def layer_norm(self, x: Array, norm: Norm, eps: float) -> Array:
        """Layer norm over the last axis."""
        ...

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """RMS norm of each slice of a row that is as wide as `weight`."""
        ...

    def gelu(self, x: Array) -> Array:
        """The exact GELU, x * Phi(x), to float32's precision."""
        ...

    def gelu_tanh(self, x: Array) -> Array:
        """GELU by its tanh formula, up to 5e-4 away; for models that were trained with it."""
        ...

    def silu(self, x: Array) -> Array:
        """x * sigmoid(x)."""
        ...

    def activate(self, x: Array, activation: Activation) -> Array:
        """Any activation, these included."""
        ...

    def rope(self, x: Array, table: Array, positions: Array) -> Array:
        """Rotary position embedding of heads side by side, x (N, heads * size).

        `table` (R, size) is `rope_table`'s, through `Ops.float32`; `positions` (N,) are its rows.
        Element e of a head's first half rotates with element e of its second half.
        """
        ...

    def shift(self, x: Array, by: int, layout: Any) -> Array:
        """For each row of x (N, D) the row that stands `by` tokens behind it in its text, and 0
        where there is none."""
        ...

    def attention(
        self, q: Array, k: Array, v: Array, spec: Attention, layout: Any, read: Read = "all"
    ) -> Array:
        """Softmax attention within each text.

        q (N, heads * size), k and v (N, kv_heads * size), heads side by side; they may be
        columns of one array. Returns (N, heads * size). Where one row of each text is read, q and
        what is returned have that row alone: (B, heads * size).
        """
        ...

    def pool(self, hidden: Array, layout: Any, poolings: Sequence[Pooling]) -> Array:
        """One row for each text: the poolings of its rows side by side, (B, D * poolings).

        `mean` is summed in float32; `mean_sqrt_len` divides the sum by the square root of the
        number of rows; in `weighted_mean` the first row weighs 1, the second 2, and so on.
        """
        ...

    def side_by_side(self, parts: Sequence[Array]) -> Array:
        """The columns of arrays (B, n) that have as many rows: (B, sum of n)."""
        ...


def check_chosen(chosen: int, scores: int, layer: Experts) -> None:
    """Raises `ValueError` unless a row of so many scores can choose that many experts."""
    experts = len(layer.up)
    if not 1 <= chosen <= experts == scores:
        raise ValueError(f"{chosen} of {experts} experts cannot be chosen by {scores} scores")


def columns(x: Array, *widths: int) -> tuple[Array, ...]:
    """x (N, sum of widths) cut into neighbouring columns, (N, width) each.

    >>> first, second = columns(np.array([[1, 2, 3]]), 1, 2)
    >>> second.tolist()
    [[2, 3]]
    """
    cuts = [0, *accumulate(widths)]
    return tuple(x[:, start:stop] for start, stop in pairwise(cuts))


def rope_table(size: int, base: float, length: int, *, slower: float = 1.0) -> NDArray[np.float32]:
    """Cosines, then sines, of the angles that positions 0..length-1 rotate by: (length, size).

    Position p rotates element e by p / (base^(2 e / size) * slower). Each step is rounded to
    float32, as other implementations do it: at position 8000 the last digit of an angle matters.
    """
    return rope_rows(rope_turns(size, base) / np.float32(slower), length)


def rope_turns(size: int, base: float) -> NDArray[np.float32]:
    """What each element of a half turns by from one position to the next: (size / 2,)."""
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    powers = (base ** exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers


def rope_rows(turns: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """A table for `Ops.rope` of what `rope_turns` returns: (length, 2 * len(turns))."""
    angles = np.arange(length, dtype=np.float32)[:, None] * turns
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
