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
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from embedsvc.cards import Dtype
from embedsvc.ops.base import Attention, Batch, Experts, Linear, Norm, Ops, T, TokenIds
from embedsvc.packed_weights import Quantized

LENGTH_STEP = 16
"""Texts are padded to a multiple of this: few shapes, so buffers and kernels are used again."""
BUFFER_CACHE_BYTES = 256 << 20
"""MLX keeps freed buffers for reuse; by default it would keep nearly all of memory."""
BIASED_SCORES = 1 << 26
"""Scores that a mask with a bias may have; more queries than that are looked at in turns."""
FUSED_SIZE = 64
"""The narrowest attention head that Metal's fused attention takes."""


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """The (B, L) grid that the rows are a flattening of."""

    texts: int
    length: int
    lengths: mx.array  # (B,)
    mask: mx.array | None  # (B, L), True on tokens; None when no text is padded
    masks: dict[Attention, mx.array] = field(default_factory=dict[Attention, mx.array])
    """What `attention` made of the mask, for the layers that follow."""


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

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any] | Quantized) -> Any:
        if isinstance(value, Quantized):
            scales, biases = self.array(value.scales), self.array(value.biases)
            return replace(value, packed=mx.array(value.packed), scales=scales, biases=biases)
        return mx.array(value).astype(self._dtype)

    def float32(self, value: NDArray[Any]) -> mx.array:
        return mx.array(value).astype(mx.float32)

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        return Linear(self.array(weight), None if bias is None else self.array(bias))

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        return Experts(self.array(up).swapaxes(1, 2), self.array(down).swapaxes(1, 2))

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

    def compiled(self, function: Callable[[Ops, Batch], mx.array]) -> Callable[[Batch], mx.array]:
        @mx.compile
        def masked(
            ids: mx.array, positions: mx.array, lengths: mx.array, mask: mx.array
        ) -> mx.array:
            layout = PaddedLayout(mask.shape[0], mask.shape[1], lengths, mask)
            return function(self, Batch(ids, positions, layout))

        @mx.compile
        def full(ids: mx.array, positions: mx.array, lengths: mx.array) -> mx.array:
            texts = lengths.shape[0]
            layout = PaddedLayout(texts, ids.shape[0] // texts, lengths, None)
            return function(self, Batch(ids, positions, layout))

        def run(batch: Batch) -> mx.array:
            if not self.compile:
                return function(self, batch)
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
        positions = np.arange(length, dtype=np.int32)
        # A model may have no position for what is padding, so that gets 0.
        positions = np.where(positions < lengths[:, None], positions, 0)
        full = bool((lengths == length).all())
        counts = mx.array(lengths)
        mask = None if full else mx.arange(length) < counts[:, None]
        layout = PaddedLayout(len(texts), length, counts, mask)
        return Batch(mx.array(ids.reshape(-1)), mx.array(positions.reshape(-1)), layout)

    def to_numpy(self, value: mx.array) -> NDArray[np.float32]:
        return np.array(value, dtype=np.float32)

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., T], *inputs: mx.array) -> T:
        return function(*inputs)

    def copy(self, x: mx.array) -> mx.array:
        return x

    def embedding(self, table: mx.array | Quantized, indices: mx.array) -> mx.array:
        if isinstance(table, Quantized):
            parts = (part[indices] for part in (table.packed, table.scales, table.biases))
            return mx.dequantize(*parts, group_size=table.group_size, bits=table.bits)
        return table[indices]

    def add(self, x: mx.array, y: mx.array) -> mx.array:
        return x + y

    def multiply(self, x: mx.array, y: mx.array) -> mx.array:
        return x * y

    def linear(self, x: mx.array, layer: Linear) -> mx.array:
        weight = layer.weight
        if isinstance(weight, Quantized):
            out = mx.quantized_matmul(
                x,
                weight.packed,
                scales=weight.scales,
                biases=weight.biases,
                group_size=weight.group_size,
                bits=weight.bits,
            )
            return out if layer.bias is None else out + layer.bias
        if layer.bias is None:
            return x @ layer.weight.T
        return mx.addmm(layer.bias, x, layer.weight.T)

    def experts(self, x: mx.array, scores: mx.array, chosen: int, layer: Experts) -> mx.array:
        weights = mx.softmax(scores.astype(mx.float32), axis=-1)
        best = mx.argpartition(-weights, chosen - 1, axis=-1)[:, :chosen]
        weights = mx.take_along_axis(weights, best, axis=-1)[..., None, None]
        dtype = x.dtype if self.gpu else mx.float32  # all that MLX's CPU has a kernel for
        inner = mx.gather_mm(x[:, None, None].astype(dtype), layer.up.astype(dtype), None, best)
        out = mx.gather_mm(self.gelu(inner), layer.down.astype(dtype), None, best)
        # (N, chosen, 1, D)
        return (out * weights).sum(axis=(1, 2)).astype(x.dtype)

    def layer_norm(self, x: mx.array, norm: Norm, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, norm.weight, norm.bias, eps)

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        slices = x.reshape(x.shape[0], -1, weight.shape[0])
        return mx.fast.rms_norm(slices, weight, eps).reshape(x.shape)

    def gelu(self, x: mx.array) -> mx.array:
        return x * (1 + mx.erf(x * 0.7071067811865476)) * 0.5

    def gelu_tanh(self, x: mx.array) -> mx.array:
        return x * (1 + mx.tanh(0.7978845608 * x * (1 + 0.044715 * x * x))) * 0.5

    def silu(self, x: mx.array) -> mx.array:
        return x * mx.sigmoid(x)

    def rope(self, x: mx.array, table: mx.array, positions: mx.array) -> mx.array:
        half = table.shape[1] // 2
        turns = table[positions][:, None]  # (N, 1, size), float32
        cos, sin = turns[..., :half], turns[..., half:]
        heads = x.reshape(x.shape[0], -1, 2 * half)
        first, second = heads[..., :half], heads[..., half:]
        turned = [first * cos - second * sin, second * cos + first * sin]
        return mx.concatenate(turned, axis=-1).reshape(x.shape).astype(x.dtype)

    def attention(
        self, q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
    ) -> mx.array:
        size = q.shape[1] // spec.heads
        widen = FUSED_SIZE - size if self.pad_heads and size < FUSED_SIZE else 0

        def by_head(x: mx.array) -> mx.array:  # (B, heads, L, size)
            grid = x.reshape(layout.texts, layout.length, -1, size)
            if widen:
                grid = mx.pad(grid, [(0, 0), (0, 0), (0, 0), (0, widen)])
            return grid.transpose(0, 2, 1, 3)

        context = _attend(by_head(q), by_head(k), by_head(v), spec, layout)
        return context[..., :size].transpose(0, 2, 1, 3).reshape(-1, spec.heads * size)

    # --- one row per text, for pooling -----------------------------------------------------------

    def segment_mean(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        tokens = _masked(hidden.astype(mx.float32), layout, 0.0)
        return tokens.sum(axis=1) / layout.lengths[:, None]

    def segment_mean_sqrt(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return self.segment_mean(hidden, layout) * mx.sqrt(layout.lengths[:, None])

    def segment_weighted_mean(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        tokens = _masked(hidden.astype(mx.float32), layout, 0.0)
        weights = mx.arange(1, layout.length + 1, dtype=mx.float32)[:, None]
        return (tokens * weights).sum(axis=1) * 2 / (layout.lengths * (layout.lengths + 1))[:, None]

    def segment_max(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return _masked(hidden, layout, -float("inf")).max(axis=1)

    def segment_first(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return _grid(hidden, layout)[:, 0]

    def segment_last(self, hidden: mx.array, layout: PaddedLayout) -> mx.array:
        return _grid(hidden, layout)[mx.arange(layout.texts), layout.lengths - 1]

    def side_by_side(self, parts: Sequence[mx.array]) -> mx.array:
        return mx.concatenate(list(parts), axis=1)


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


def _attend(
    q: mx.array, k: mx.array, v: mx.array, spec: Attention, layout: PaddedLayout
) -> mx.array:
    """Attention of (B, heads, L, size), as much at a time as its mask allows."""
    length = layout.length
    mask: mx.array | str | None
    window = spec.window if spec.window is not None and spec.window < length - 1 else None
    if window is None and spec.bias is None:
        if spec.causal:
            mask = "causal"  # padding lies behind all tokens, where none looks
        else:  # (B, 1, 1, L): a query may look at every token of its own text, at no padding
            mask = None if layout.mask is None else layout.mask[:, None, None, :]
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale, mask=mask)
    scores = length * length * (1 if spec.bias is None else layout.texts * spec.heads)
    if scores <= BIASED_SCORES:
        mask = layout.masks.get(spec)
        if mask is None:
            mask = layout.masks[spec] = _mask(spec, layout, 0, length)
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=spec.scale, mask=mask)
    step = max(1, BIASED_SCORES * length // scores)
    parts: list[mx.array] = []
    for first in range(0, length, step):
        last = min(first + step, length)
        mask = _mask(spec, layout, first, last)
        some = q[:, :, first:last]
        parts.append(mx.fast.scaled_dot_product_attention(some, k, v, scale=spec.scale, mask=mask))
    return mx.concatenate(parts, axis=2)


def _mask(spec: Attention, layout: PaddedLayout, first: int, last: int) -> mx.array:
    """What queries first..last-1 see, or what is added to scores: (B or 1, heads or 1, n, L)."""
    distance = mx.arange(layout.length) - mx.arange(first, last)[:, None]  # (n, L)
    seen = mx.ones_like(distance).astype(mx.bool_)
    if spec.causal:
        seen = distance <= 0
    if spec.window is not None:
        seen = seen & (mx.abs(distance) <= spec.window)
    seen = seen[None, None]
    if layout.mask is not None:
        # Padding too must see something, itself, or it becomes NaN, which no mask holds back.
        seen = (seen & layout.mask[:, None, None, :]) | (distance == 0)
    if spec.bias is None:
        return seen
    furthest = (spec.bias.shape[1] - 1) // 2
    bias = spec.bias[:, mx.clip(distance, -furthest, furthest) + furthest]
    return mx.where(seen, bias, -float("inf"))


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
