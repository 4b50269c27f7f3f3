"""The operations on MLX: Metal on a Mac, CUDA on an NVIDIA machine, and MLX's CPU for tests.

Texts lie padded to one length. MLX ties arrays to the thread that made them, so everything here,
the constructor included, must run on the one device thread.
"""

# MLX's stubs leave *args untyped, in eval, reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import os
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
"""Texts are padded to a multiple of this, and long ones to rounder numbers."""
SETTINGS = {
    "MLX_ENABLE_TF32": "0",  # or float32 products have the precision of float16
    # On CUDA MLX takes new shapes for a mistake, and fails from the 513th on, however long it ran.
    "MLX_ENABLE_CACHE_THRASHING_CHECK": "0",
}
"""What MLX reads from the environment, each when it is first needed."""
CACHE_SHARE = 8
"""One part in so many of the GPU's memory holds freed buffers for reuse; by default nearly all."""
BYTES_A_TOKEN = 1 << 20
"""Memory that a token of a pass is given: what a pass of 24 layers, 1024 wide, writes in all."""
MOST_TOKENS = 1 << 16
FUSED_SIZE = 64
"""The narrowest attention head that Metal's fused attention takes."""
PLAIN_LENGTH = 128
"""The longest texts whose attention scores may be written to memory."""


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """The (B, L) grid that the rows are a flattening of."""

    texts: int
    length: int
    grid: mx.array  # (B, L), ids; -1 behind each text's end
    mask: mx.array  # (B, L), True on tokens
    lengths: mx.array  # (B,)
    added: mx.array  # (B, 1, 1, L), to scores: 0 on tokens, the least there is elsewhere


class MlxOps:
    """See `Ops`."""

    name: Literal["mlx"] = "mlx"

    def __init__(self, dtype: Dtype | None = None) -> None:
        for setting, value in SETTINGS.items():
            os.environ.setdefault(setting, value)
        self.gpu = has_gpu()
        self.pad_heads = False
        """Whether attention heads are widened with zeros to FUSED_SIZE, which changes no result."""
        self.plain = False
        """Whether attention of short texts is three operations rather than MLX's fused one."""
        self.compile = False
        """Whether passes go through `mx.compile`."""
        mx.set_default_device(mx.gpu if self.gpu else mx.cpu)
        self.device, self.max_batch_tokens = f"{platform.machine()} CPU", 512
        if self.gpu:
            self.device, memory = _gpu()
            self.max_batch_tokens = min(memory // BYTES_A_TOKEN, MOST_TOKENS)
            mx.set_cache_limit(memory // CACHE_SHARE)
        self.dtype: Dtype = dtype or ("float16" if self.gpu else "float32")
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
            switch = "pad_heads" if mx.metal.is_available() else "plain"
            setattr(self, switch, self._faster(switch, encode))
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
        def fast(grid: mx.array) -> mx.array:
            return function(self._lay_out(grid))

        def run(batch: Batch) -> mx.array:
            return fast(batch.layout.grid) if self.compile else function(batch)

        return run

    def begin(self, value: mx.array) -> mx.array:
        value = value.astype(mx.float32)
        mx.async_eval(value)
        return value

    # --- batches -------------------------------------------------------------------------------

    def grid(self, texts: int, longest: int) -> tuple[int, int]:
        # Few shapes: each that is new has to be compiled or planned, on CUDA for up to a second.
        step = max(LENGTH_STEP, (1 << (longest - 1).bit_length()) // 16)
        return 1 << (texts - 1).bit_length(), -(-longest // step) * step

    def batch(self, texts: Sequence[TokenIds]) -> Batch:
        lengths = np.array([len(text) for text in texts])
        shape = self.grid(len(texts), int(lengths.max()))
        grid = np.full(shape, -1, dtype=np.int32)
        grid[:, 0] = 0  # texts that only fill the grid have a token too: of none, NaN would come
        tokens = np.arange(shape[1]) < lengths[:, None]
        grid[: len(texts)][tokens] = np.concatenate(texts)
        return self._lay_out(mx.array(grid))

    def _lay_out(self, grid: mx.array) -> Batch:
        texts, length = grid.shape
        mask = grid >= 0
        positions = mx.where(mask, mx.arange(length), 0)  # padding may be beyond the last
        # Not -inf: where a whole block of scores is that, some fused attention makes NaN of it.
        added = mx.where(mask, 0.0, mx.finfo(self._dtype).min).astype(self._dtype)
        added = added[:, None, None]
        layout = PaddedLayout(texts, length, grid, mask, mask.sum(axis=1), added)
        return Batch(mx.maximum(grid, 0).reshape(-1), positions.reshape(-1), layout)

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
        if self.plain and layout.length <= PLAIN_LENGTH:
            scores = q @ k.swapaxes(-1, -2) + layout.added
            context = mx.softmax(scores, axis=-1, precise=True) @ v
        else:
            # Not the mask itself: CUDA would make of it scores of (B, heads, L, L), in every layer.
            context = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0, mask=layout.added)
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
    return mx.where(layout.mask[..., None], _grid(hidden, layout), value)


def _gpu() -> tuple[str, int]:
    """The GPU's name, for people, and its memory in bytes."""
    info = mx.device_info(mx.gpu)
    metal = mx.metal.is_available()
    memory = info["memory_size" if metal else "total_memory"]
    return f"{info['device_name']} ({'Metal' if metal else 'CUDA'})", int(memory)
