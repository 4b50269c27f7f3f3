"""The operations every backend offers, and the batch they work on.

Tokens are rows. A batch of B texts has N rows: ids (N,), positions (N,), hidden (N, D). How texts
lie in those rows is the backend's own affair (packed end to end on NumPy, padded to one length on
MLX) and is known only to `attention` and `pool`, through the batch's layout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype, Pooling
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.memory import MemoryUse
from embedsvc.texts.item import TokenIds

T = TypeVar("T")
Array = Any  # numpy.ndarray or mlx.core.array, never mixed


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer as its backend likes it; made by `Ops.linear_layer`, used by `Ops.linear`."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True, slots=True)
class Norm:
    """Scale and shift of a layer norm, (D,) each."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True, slots=True)
class Experts:
    """The layers of E experts as their backend likes them; made by `Ops.experts_layer`."""

    up: Array
    down: Array


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """What one kind of attention layer does, made once at load.

    Query i sees key j of its own text where `causal` and `window` both allow it.
    """

    heads: int
    kv_heads: int
    """Heads of keys and values; each serves heads / kv_heads neighbouring heads of queries."""
    scale: float = 1.0
    causal: bool = False
    """Whether j <= i is asked for."""
    window: int | None = None
    """If given, |i - j| <= window is asked for."""
    bias: Array | None = None
    """(heads, 2 R - 1): [:, j - i + R - 1] is added to scores; no text is longer than R."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a pass is prepared for."""

    longest: int
    """Tokens of the longest text, or pair of texts."""
    pairs: bool = False
    """Whether it is told apart to which text of a pair a token belongs."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of B texts, laid out by `Ops.batch`."""

    ids: Array  # (N,)
    positions: Array  # (N,), from 0 within each text; 0 where a backend pads
    layout: Any  # the backend's own
    types: Array | None = None  # (N,): 1 in the second text of a pair; None where nobody asks


class Ops(Protocol):
    """What a backend can do.

    An operation of the forward pass may overwrite its first argument: use its result. `embedding`,
    `linear` and `experts` do not.
    """

    @property
    def name(self) -> Literal["mlx", "native", "numpy"]: ...

    @property
    def device(self) -> str:
        """The hardware, for people."""
        ...

    @property
    def dtype(self) -> Dtype:
        """What weights and activations are held in."""
        ...

    @property
    def slots(self) -> int:
        """How many batches are worth running at once."""
        ...

    @property
    def max_batch_tokens(self) -> int:
        """Tokens of one batch, padding included, that memory is sure to hold."""
        ...

    @property
    def memory(self) -> int:
        """Bytes of memory that the device has."""
        ...

    def memory_use(self) -> MemoryUse:
        """Memory in use on the device now; may be called on any thread."""
        ...

    @property
    def grid(self) -> Callable[[int, int], tuple[int, int]] | None:
        """How many texts, of what length, are computed for so many, the longest of that length.

        None where nothing is padded.
        """
        ...

    @property
    def pipelined(self) -> bool:
        """Whether `begin` returns before the work is done, and `to_numpy` may wait elsewhere."""
        ...

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any] | Quantized) -> Array:
        """The array on the device, in the backend's dtype; a quantised one is a table."""
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

    def tune(self, seconds: Callable[[], float]) -> None:
        """Try what makes passes faster on some hardware only, and keep what does so here.

        `seconds()` runs a typical pass and returns how long it took.
        """
        ...

    def release(self) -> None:
        """Return memory that was freed, and kept for more of the same."""
        ...

    def compiled(self, function: Callable[["Ops", Batch], Array]) -> Callable[[Batch], Array]:
        """The pass, `function(ops, batch)`, in the fastest form the backend has.

        It raises `EmbeddingFailed` for a batch with an id or a position that a table of the pass
        has no row for, and reads none of it.
        """
        ...

    def begin(self, value: Array) -> Array:
        """Have the hardware begin to compute the array, as float32."""
        ...

    # --- batches -------------------------------------------------------------------------------

    def batch(self, texts: Sequence[TokenIds], types: Sequence[TokenIds] | None = None) -> Batch:
        """Lay out texts, each of one token or more; equal lengths next to each other run best.

        `types` has the type of each token, for passes that look them up.

        Raises `ValueError` for anything else.
        """
        ...

    def split(self, rows: NDArray[np.float32], layout: Any) -> list[NDArray[np.float32]]:
        """A row for each token (N, D), on the host, as the rows of each text: (L, D) each."""
        ...

    def to_numpy(self, value: Array) -> NDArray[np.float32]:
        """The array on the host, computed; of a begun one in float32, from any thread."""
        ...

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., T], *inputs: Array) -> T:
        """`function(*inputs)` for a function that treats every row by itself.

        It returns an array or a tuple of arrays. The backend may call it on some rows at a time,
        (n, ...) of each input.
        """
        ...

    def copy(self, x: Array) -> Array:
        """x, for an operation that may overwrite it, where x itself is needed later."""
        ...

    def embedding(self, table: Array, indices: Array) -> Array:
        """Rows of `table` (V, D) at `indices` (N,), a batch's ids, positions or types: (N, D)."""
        ...

    def looked_up(self, rows: int, indices: Array) -> None:
        """Tell of a table of so many rows that the pass looks up at `indices` by other means."""
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
        """x (N, D) through the `chosen` experts of each row's highest scores (N, E): (N, D).

        An expert is down(gelu(up(x))); they are summed, weighted by the softmax of all scores.
        Raises `ValueError` if there are not so many.
        """
        ...

    def layer_norm(self, x: Array, norm: Norm, eps: float) -> Array:
        """Layer norm over the last axis."""
        ...

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """Each slice of a row as wide as `weight`, over its root mean square, times `weight`."""
        ...

    def gelu(self, x: Array) -> Array:
        """The exact GELU, x * Phi(x), to float32's precision (the tanh formula: 5e-4)."""
        ...

    def gelu_tanh(self, x: Array) -> Array:
        """GELU by the tanh formula, for models that were trained with it."""
        ...

    def silu(self, x: Array) -> Array:
        """x * sigmoid(x)."""
        ...

    def tanh(self, x: Array) -> Array:
        """tanh(x)."""
        ...

    def rope(self, x: Array, table: Array, positions: Array) -> Array:
        """Rotary position embedding of heads side by side, x (N, heads * size).

        `table` is `rope_table`'s, (R, size), as `Ops.float32` holds it; `positions` (N,) are rows
        of it. Element e of a head's first half turns with element e of its second half.
        """
        ...

    def attention(self, q: Array, k: Array, v: Array, spec: Attention, layout: Any) -> Array:
        """Softmax attention within each text.

        q (N, heads * size), k and v (N, kv_heads * size), heads side by side; they may be columns
        of one product. Returns (N, heads * size).
        """
        ...

    def pool(self, hidden: Array, layout: Any, poolings: Sequence[Pooling]) -> Array:
        """One row for each text: the poolings of its rows side by side, (B, D * poolings).

        `mean` is summed in float32; `mean_sqrt_len` divides the sum by the square root of the
        number of rows; in `weighted_mean` the first row weighs 1, the second 2, and so on.
        """
        ...


def check_chosen(chosen: int, scores: int, layer: Experts) -> None:
    """Raises `ValueError` unless so many experts of the layer can be chosen by so many scores."""
    experts = len(layer.up)
    if not 1 <= chosen <= experts == scores:
        raise ValueError(f"{chosen} of {experts} experts cannot be chosen by {scores} scores")


def columns(x: Array, *widths: int) -> tuple[Array, ...]:
    """x (N, sum of widths) cut into neighbouring columns, (N, width) each."""
    cuts = [0, *accumulate(widths)]
    return tuple(x[:, start:stop] for start, stop in pairwise(cuts))


def rope_table(size: int, base: float, length: int, *, slower: float = 1.0) -> NDArray[np.float32]:
    """Cosines, then sines, of how far positions 0..length-1 turn a head's parts: (length, size).

    Position p turns part e by p / (base^(2 e / size) * slower), rounded to float32 after each step
    as other implementations do it: at position 8000 an angle's last digit matters.
    """
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    powers = (base ** exponents.astype(np.float64)).astype(np.float32)
    turns = 1 / powers / np.float32(slower)
    angles = np.arange(length, dtype=np.float32)[:, None] * turns
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
