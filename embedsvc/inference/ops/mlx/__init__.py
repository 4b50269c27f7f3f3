"""The operations on MLX: Metal on a Mac, CUDA on an NVIDIA machine, and MLX's CPU for tests.

Texts are padded to one length. MLX ties arrays to the thread that made them, so everything here,
the constructor included, must run on the one device thread.
"""

# MLX's stubs leave *args untyped, in eval, reshape and transpose among others.
# pyright: reportUnknownMemberType=false

import math
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Dtype, Pooling
from embedsvc.checkpoints.quantized import Quantized
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import (
    Attention,
    Batch,
    CompiledPass,
    Experts,
    ForwardPass,
    Linear,
    Norm,
    Read,
    T,
)
from embedsvc.inference.ops.memory import PASSES, MemoryUse
from embedsvc.inference.ops.mlx import quantized
from embedsvc.inference.ops.mlx.activations import FactorName
from embedsvc.inference.ops.mlx.attention import attend, attend_plainly
from embedsvc.inference.ops.mlx.attention_row import attend_row
from embedsvc.inference.ops.mlx.compiling import OFTEN, CompiledPasses
from embedsvc.inference.ops.mlx.dispatch import at_once, by_rows
from embedsvc.inference.ops.mlx.experts import mix
from embedsvc.inference.ops.mlx.fusing import Fused, LastStep
from embedsvc.inference.ops.mlx.layout import PaddedLayout, fill_grid, grid_shape, lay_out
from embedsvc.inference.ops.mlx.maxsim import score_documents
from embedsvc.inference.ops.mlx.memory import (
    clear_cache,
    describe_gpu,
    keep_within,
    memory_use,
)
from embedsvc.inference.ops.mlx.narrow_heads import double, halve, should_double
from embedsvc.inference.ops.mlx.pooling import pool
from embedsvc.inference.ops.mlx.rope import TurnCache
from embedsvc.inference.ops.table_limits import CheckedPass, IndexRange, check_texts
from embedsvc.inference.ops.tuning import Shape, Tuning
from embedsvc.system import machine
from embedsvc.texts.item import TokenIds

SETTINGS = {
    "MLX_ENABLE_TF32": "0",  # with it float32 products have the precision of float16
    # On CUDA MLX takes new shapes for a mistake and fails at the 513th, however long it has run.
    "MLX_ENABLE_CACHE_THRASHING_CHECK": "0",
}
"""Variables that MLX reads from the environment, each when it first needs it."""
MOST_TOKENS = 1 << 16
"""Tokens of a batch on a GPU, however small the model."""
PLAIN_LENGTH = 128
"""The longest texts whose attention scores may be written to memory."""
SWITCHES = {"compile": Shape(1, 32)}
"""What is tried on each GPU, and the batch at which it matters: of a lone short text it is Python
that takes most of the time."""
CUDA_SWITCHES = {"plain": Shape(16, PLAIN_LENGTH)}
"""What is tried on CUDA as well."""


class MlxOps:
    """See `Ops`."""

    name: Literal["mlx"] = "mlx"
    dtypes: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
    grid = staticmethod(grid_shape)

    def __init__(self, dtype: Dtype | None = None) -> None:
        for setting, value in SETTINGS.items():
            os.environ.setdefault(setting, value)
        self.gpu = has_gpu()
        self.double_heads = False
        """Whether narrow attention heads are made twice as wide where that pays."""
        self.plain = False
        """Whether attention of short texts is products and a softmax, not MLX's fused operation."""
        self.compile = self.gpu
        """Whether passes of shapes that come often go through `mx.compile`."""
        self.often = OFTEN
        """How many of the last batches that is."""
        mx.set_default_device(mx.gpu if self.gpu else mx.cpu)
        self.device, self.max_batch_tokens = f"{platform.machine()} CPU", 512
        self.memory = machine.memory().usable
        if self.gpu:
            self.device, self.memory = describe_gpu()
            self.max_batch_tokens = MOST_TOKENS
            keep_within(self.memory)
            self.double_heads = mx.metal.is_available()
        self.pass_memory = self.memory // PASSES
        self.dtype: Dtype = dtype or ("float16" if self.gpu else "float32")
        self._dtype: mx.Dtype = getattr(mx, self.dtype)
        self._widest = 1
        """Operations, for each row, of the widest linear layer."""
        self._fused = Fused(compiled=self.gpu)
        self._last = LastStep()
        self._turns = TurnCache()
        # A second pass is queued while one runs, so that the GPU never waits for Python.
        self.pipelined = self.gpu and _can_wait_elsewhere()
        self.slots = 2 if self.pipelined else 1

    # --- loading -------------------------------------------------------------------------------

    def array(self, value: NDArray[Any] | Quantized) -> Any:
        if isinstance(value, Quantized):
            return quantized.on_device(value, self._dtype)
        converted = mx.array(value).astype(self._dtype)
        mx.eval(converted)  # now, so that the first pass need not do it for all weights
        return converted

    def table(self, value: NDArray[Any] | Quantized) -> Any:
        return self.array(value)

    def float32(self, value: NDArray[Any]) -> mx.array:
        return mx.array(value).astype(mx.float32)

    def linear_layer(self, weight: NDArray[Any] | Quantized, bias: NDArray[Any] | None) -> Linear:
        self._widest = max(self._widest, 2 * math.prod(weight.shape))
        return Linear(self.array(weight), None if bias is None else self.array(bias))

    def experts_layer(self, up: NDArray[Any], down: NDArray[Any]) -> Experts:
        return Experts(self.array(up).swapaxes(1, 2), self.array(down).swapaxes(1, 2))

    def tune(self, tuning: Tuning) -> None:
        if self.gpu:
            tried = SWITCHES if mx.metal.is_available() else CUDA_SWITCHES | SWITCHES
            self.often = 1
            tuning.choose(self, f"MLX {version('mlx')} on {self.device}", tried)
            self.often = OFTEN

    def memory_use(self) -> MemoryUse:
        return memory_use()

    def release(self) -> None:
        clear_cache()

    def compiled(self, function: ForwardPass) -> CompiledPass:
        run = CompiledPasses(self, function, self._dtype, self)
        return CheckedPass(self, function, run, lambda batch: batch.layout.indices)

    def begin(self, value: mx.array) -> mx.array:
        self._last.clear()
        self._turns.clear()
        value = value.astype(mx.float32)
        mx.async_eval(value)
        return value

    # --- batches -------------------------------------------------------------------------------

    def batch(
        self,
        texts: Sequence[TokenIds],
        types: Sequence[TokenIds] | None = None,
        seen: Sequence[int] | None = None,
    ) -> Batch:
        check_texts(texts, types, seen)
        ids, longest = np.concatenate(texts), max(map(len, texts))
        indices = IndexRange(int(ids.min()), int(ids.max()), longest)
        grids = [fill_grid(texts, seen)]
        if types is not None:
            joined = np.concatenate(types)
            indices = indices._replace(types=(int(joined.min()), int(joined.max())))
            grids.append(fill_grid(types))
        return lay_out(tuple(map(mx.array, grids)), self._dtype, indices, tuple(map(len, texts)))

    def split(self, rows: NDArray[np.float32], layout: PaddedLayout) -> list[NDArray[np.float32]]:
        grid = rows.reshape(layout.texts, layout.length, -1)
        return [text[:size] for text, size in zip(grid, layout.sizes, strict=False)]

    def to_numpy(self, value: mx.array) -> NDArray[np.float32]:
        return np.array(value, dtype=np.float32)

    def maxsim(
        self, query: NDArray[np.float32], documents: Sequence[NDArray[np.float16]]
    ) -> NDArray[np.float32]:
        return score_documents(query, documents)

    # --- the forward pass ----------------------------------------------------------------------

    def rows(self, function: Callable[..., T], *inputs: mx.array) -> T:
        return by_rows(function, inputs, at_once(self._widest))

    def copy(self, x: mx.array) -> mx.array:
        return x

    def embedding(self, table: mx.array | Quantized, indices: mx.array) -> mx.array:
        if isinstance(table, Quantized):
            return quantized.rows(table, indices, self._dtype)
        return table[indices]

    def looked_up(self, rows: int, indices: mx.array) -> None:
        pass

    def add(self, x: mx.array, y: mx.array) -> mx.array:
        joined = self._last.join("add", x, y)
        return x + y if joined is None else joined

    def multiply(self, x: mx.array, y: mx.array) -> mx.array:
        joined = self._last.join("multiply", x, y)
        return x * y if joined is None else joined

    def linear(self, x: mx.array, layer: Linear) -> mx.array:
        weight = layer.weight
        if isinstance(weight, Quantized):
            out = quantized.product(x, weight)
            return out if layer.bias is None else out + layer.bias
        if layer.bias is not None:
            return mx.addmm(layer.bias, x, weight.T)
        out = x @ weight.T
        self._last.note(out, "add", lambda other: mx.addmm(other, x, weight.T))
        return out

    def experts(self, x: mx.array, scores: mx.array, chosen: int, layer: Experts) -> mx.array:
        dtype = x.dtype if self.gpu else mx.float32  # all that MLX's CPU has a kernel for
        return mix(x, scores, chosen, layer, self.gelu, dtype)

    def layer_norm(self, x: mx.array, norm: Norm, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, norm.weight, norm.bias, eps)

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        slices = x.reshape(x.shape[0], -1, weight.shape[0])
        return mx.fast.rms_norm(slices, weight, eps).reshape(x.shape)

    def gelu(self, x: mx.array) -> mx.array:
        return self._with_factor("gelu", x)

    def gelu_tanh(self, x: mx.array) -> mx.array:
        return self._with_factor("gelu_tanh", x)

    def silu(self, x: mx.array) -> mx.array:
        return self._with_factor("silu", x)

    def activate(self, x: mx.array, activation: Activation) -> mx.array:
        name = activation.name
        if name in ("gelu", "gelu_tanh", "quick_gelu", "silu"):
            return self._with_factor(name, x)
        return self._fused.activations[name](x, *activation.numbers)

    def _with_factor(self, name: FactorName, x: mx.array) -> mx.array:
        alone, with_gate = self._fused.factors[name]
        out = alone(x)
        self._last.note(out, "multiply", lambda gate: with_gate(x, gate))
        return out

    def rope(self, x: mx.array, table: mx.array, positions: mx.array) -> mx.array:
        turns = self._turns.take(table, positions)
        return self._fused.turn(*self._turns.operands(x, turns)).reshape(x.shape)

    def shift(self, x: mx.array, by: int, layout: PaddedLayout) -> mx.array:
        grid = mx.where(layout.mask[..., None], x.reshape(layout.texts, layout.length, -1), 0)
        width = [(0, 0), (max(0, -by), max(0, by)), (0, 0)]
        moved = mx.pad(grid, width)[:, max(0, by) : max(0, by) + layout.length]
        return moved.reshape(x.shape)

    def attention(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        spec: Attention,
        layout: PaddedLayout,
        read: Read = "all",
    ) -> mx.array:
        if read != "all":
            return attend_row(q, k, v, spec, layout, read)
        size = q.shape[1] // spec.heads
        if spec.relative is not None:
            return attend_plainly(q, k, v, spec, layout)
        doubled = self.double_heads and should_double(size, layout.texts, layout.length)
        if doubled:
            q, k, v = (double(x, size) for x in (q, k, v))
        plain = self.plain and layout.length <= PLAIN_LENGTH
        context = (attend_plainly if plain else attend)(q, k, v, spec, layout)
        return halve(context, size) if doubled else context

    def pool(self, hidden: mx.array, layout: PaddedLayout, poolings: Sequence[Pooling]) -> mx.array:
        parts = [pool(hidden, layout, pooling) for pooling in poolings]
        return self.side_by_side(parts)

    def side_by_side(self, parts: Sequence[mx.array]) -> mx.array:
        return parts[0] if len(parts) == 1 else mx.concatenate([*parts], axis=1)


def has_gpu() -> bool:
    """Whether MLX has a GPU to run on."""
    return mx.is_available(mx.gpu)


def _can_wait_elsewhere() -> bool:
    """Whether one thread may wait for an array that another has begun to compute."""
    begun = mx.ones(8) + 1
    mx.async_eval(begun)
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(np.array, begun).result()[0] == 2
        except RuntimeError:
            return False
