"""The operations on MLX: Metal on a Mac, CUDA on an NVIDIA machine, and MLX's CPU for tests.

Texts lie padded to one length. MLX ties arrays to the thread that made them, so everything here,
the constructor included, must run on the one device thread.
"""

# MLX's stubs leave *args untyped, in eval, reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from embedsvc.cards import Dtype
from embedsvc.ops.base import Batch, Linear, Norm, T, TokenIds

LENGTH_STEP = 16
"""Texts are padded to a multiple of this: few shapes, so buffers and kernels are used again."""
BUFFER_CACHE_BYTES = 256 << 20
"""MLX keeps freed buffers for reuse; by default it would keep nearly all of memory."""


FUSED_SIZE = 64
"""The narrowest attention head that Metal's fused attention takes."""


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """The (B, L) grid that the rows are a flattening of."""

    texts: int
    length: int
    lengths: mx.array  # (B,)
    mask: mx.array | None  # (B, L), True on tokens; None when no text is padded


class MlxOps:
    """See `Ops`."""

    name: Literal["mlx"] = "mlx"
    padded = True

    def __init__(self, dtype: Dtype | None = None) -> None:
        self.gpu = has_gpu()
        self.pad_heads = False
        """Whether attention heads are widened with zeros to FUSED_SIZE, which changes no result."""
        self.compile = False
        """Whether passes go through `mx.compile`."""
        mx.set_default_device(mx.gpu if self.gpu else mx.cpu)
        mx.set_cache_limit(BUFFER_CACHE_BYTES)
        self.device = _device_name(self.gpu)
        self.dtype: Dtype = dtype or ("float16" if self.gpu else "float32")
        self.max_batch_tokens = 16384 if self.gpu else 512
        self._dtype: mx.Dtype = getattr(mx, self.dtype)
        # A second pass is queued while one runs, so that the GPU never waits for Python.
        self.pipelined = self.gpu and _can_wait_elsewhere()
        self.slots = 2 if self.pipelined else 1

    def run(self, function: Callable[[], T], tokens: int) -> T:
        return function()

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any]) -> mx.array:
        return mx.array(value).astype(self._dtype)

    def linear_layer(self, weight: NDArray[Any], bias: NDArray[Any] | None) -> Linear:
        return Linear(self.array(weight), None if bias is None else self.array(bias))

    def tune(self, encode: Callable[[], object]) -> None:
        if self.gpu:
            self.pad_heads = self._faster("pad_heads", encode)
            self.compile = self._faster("compile", encode)

    def _faster(self, switch: str, encode: Callable[[], object]) -> bool:
        taken: dict[bool, float] = {}
        for value in (False, True):
            setattr(self, switch, value)
            encode()  # compiles kernels
            taken[value] = min(_seconds(encode) for _ in range(5))
        return taken[True] < 0.97 * taken[False]

    def compiled(self, function: Callable[[Batch], mx.array]) -> Callable[[Batch], mx.array]:
        @mx.compile
        def masked(
            ids: mx.array, positions: mx.array, lengths: mx.array, mask: mx.array
        ) -> mx.array:
            return function(
                Batch(ids, positions, PaddedLayout(mask.shape[0], mask.shape[1], lengths, mask))
            )

        @mx.compile
        def full(ids: mx.array, positions: mx.array, lengths: mx.array) -> mx.array:
            texts = lengths.shape[0]
            layout = PaddedLayout(texts, ids.shape[0] // texts, lengths, None)
            return function(Batch(ids, positions, layout))

        def run(batch: Batch) -> mx.array:
            if not self.compile:
                return function(batch)
            layout: PaddedLayout = batch.layout
            if layout.mask is None:
                return full(batch.ids, batch.positions, layout.lengths)
            return masked(batch.ids, batch.positions, layout.lengths, layout.mask)

        return run

    def begin(self, value: mx.array) -> mx.array:
        value = value.astype(mx.float32)
        mx.async_eval(value)
        return value

    # --- batches -------------------------------------------------------------------------------

    def batch(self, texts: Sequence[TokenIds]) -> Batch:
        lengths = np.array([len(text) for text in texts], dtype=np.int32)
        length = int(-(-lengths.max() // LENGTH_STEP) * LENGTH_STEP)
        ids = np.zeros((len(texts), length), dtype=np.int32)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        positions = np.tile(np.arange(length, dtype=np.int32), len(texts))
        full = bool((lengths == length).all())
        counts = mx.array(lengths)
        mask = None if full else mx.arange(length) < counts[:, None]
        layout = PaddedLayout(len(texts), length, counts, mask)
        return Batch(mx.array(ids.reshape(-1)), mx.array(positions), layout)

    def to_numpy(self, value: mx.array) -> NDArray[np.float32]:
        return np.array(value, dtype=np.float32)

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., mx.array], *inputs: mx.array) -> mx.array:
        return function(*inputs)

    def embedding(self, table: mx.array, indices: mx.array) -> mx.array:
        return table[indices]

    def add(self, x: mx.array, y: mx.array) -> mx.array:
        return x + y

    def linear(self, x: mx.array, layer: Linear) -> mx.array:
        if layer.bias is None:
            return x @ layer.weight.T
        return mx.addmm(layer.bias, x, layer.weight.T)

    def layer_norm(self, x: mx.array, norm: Norm, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, norm.weight, norm.bias, eps)

    def gelu(self, x: mx.array) -> mx.array:
        return x * (1 + mx.erf(x * 0.7071067811865476)) * 0.5

    def attention(self, qkv: mx.array, heads: int, layout: PaddedLayout) -> mx.array:
        width = qkv.shape[1] // 3
        grid = qkv.reshape(layout.texts, layout.length, 3, heads, width // heads)
        if self.pad_heads and grid.shape[-1] < FUSED_SIZE:
            grid = mx.pad(grid, [*[(0, 0)] * 4, (0, FUSED_SIZE - grid.shape[-1])])
        q, k, v = grid.transpose(2, 0, 3, 1, 4)  # each (B, heads, L, width / heads)
        # (B, 1, 1, L): a query may look at every token of its own text, at no padding.
        mask = None if layout.mask is None else layout.mask[:, None, None, :]
        context = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask=mask)
        context = context[..., : width // heads]
        return context.transpose(0, 2, 1, 3).reshape(-1, width)

    # --- one row per text, for pooling -----------------------------------------------------------

    def segment_mean(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        tokens = _masked(hidden.astype(mx.float32), layout, 0.0)
        return tokens.sum(axis=1) / layout.lengths[:, None]

    def segment_max(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return _masked(hidden, layout, -float("inf")).max(axis=1)

    def segment_first(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return _grid(hidden, layout)[:, 0]

    def segment_last(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return _grid(hidden, layout)[mx.arange(layout.texts), layout.lengths - 1]


def has_gpu() -> bool:
    """Whether MLX has a GPU to run on."""
    return mx.is_available(mx.gpu)


def _can_wait_elsewhere() -> bool:
    """Whether a thread may wait for an array that another has begun."""
    begun = mx.ones(8) + 1
    mx.async_eval(begun)
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(np.array, begun).result()[0] == 2
        except RuntimeError:
            return False


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _grid(hidden: mx.array, layout: PaddedLayout) -> mx.array:
    return hidden.reshape(layout.texts, layout.length, -1)  # (B, L, D)


def _masked(hidden: mx.array, layout: PaddedLayout, value: float) -> mx.array:
    grid = _grid(hidden, layout)
    return grid if layout.mask is None else mx.where(layout.mask[..., None], grid, value)


def _device_name(gpu: bool) -> str:
    if not gpu:
        return f"{platform.machine()} CPU"
    name = str(mx.device_info(mx.gpu).get("device_name", "GPU"))
    return f"{name} ({'Metal' if mx.metal.is_available() else 'CUDA'})"
