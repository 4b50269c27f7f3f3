"""A pass that uses every operation of the kernels, and batches for it."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.quantized import quantize
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import Attention, Batch, Linear, Norm, columns, rope_table
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.formats.bfloat16 import BFloat16Panels, to_bfloat16
from embedsvc.inference.ops.native.formats.int8 import Int8Panels
from embedsvc.inference.ops.native.formats.quantized import QuantizedPanels, QuantizedTable

WIDTH, ROWS, INNER, EXPERTS = 8, 9, 20, 3


def everything(ops: Any) -> Callable[[Any, Batch], Any]:
    """A pass with an instruction of each operation."""
    random = np.random.default_rng(11)

    def floats(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    words, places, turns = floats(ROWS, WIDTH), floats(ROWS, WIDTH), rope_table(4, 100.0, ROWS)
    halves = to_bfloat16(floats(ROWS, WIDTH))
    norm, one = Norm(floats(WIDTH), floats(WIDTH)), floats(WIDTH)
    qkv = ops.linear_layer(floats(3 * WIDTH, WIDTH), floats(3 * WIDTH))
    router = ops.linear_layer(floats(EXPERTS, WIDTH), None)
    layer = ops.experts_layer(floats(EXPERTS, INNER, WIDTH), floats(EXPERTS, WIDTH, INNER))
    spec = Attention(2, 2, bias=floats(2, 2 * ROWS - 1), window=5)
    out = ops.linear_layer(floats(5, 6 * WIDTH), floats(5))
    first_out = ops.linear_layer(floats(5, WIDTH), None)
    kernels = library.load().kernels[0]
    low = [
        Linear(format_.pack(floats(WIDTH, WIDTH), floats(WIDTH), kernels), None)
        for format_ in (BFloat16Panels(), Int8Panels())
    ]
    codes = quantize(floats(WIDTH, WIDTH), WIDTH, 4)
    low.append(Linear(QuantizedPanels().pack(codes, floats(WIDTH), kernels), None))
    packed = QuantizedTable(quantize(floats(ROWS, WIDTH), WIDTH, 4))

    def run(ops: Any, batch: Batch) -> Any:
        hidden = ops.add(ops.embedding(words, batch.ids), ops.embedding(places, batch.positions))
        hidden = ops.add(hidden, ops.embedding(halves, batch.ids))
        hidden = ops.add(hidden, ops.embedding(packed, batch.ids))
        hidden = ops.layer_norm(hidden, norm, 1e-5)
        q, k, v = columns(ops.linear(hidden, qkv), WIDTH, WIDTH, WIDTH)
        q = ops.rms_norm(ops.rope(q, turns, batch.positions), one[:4], 1e-6)
        ops.attends_by = "attention_bfloat16"
        q = ops.attention(q, k, v, spec, batch.layout)
        ops.attends_by = "attention"
        context = ops.attention(q, k, v, spec, batch.layout)
        context = ops.silu(ops.multiply(context, ops.copy(hidden)))
        context = ops.activate(context, Activation("prelu", (0.5,)))
        context = ops.activate(context, Activation("xielu", (0.8, 0.8, 0.5, -1e-6)))
        hidden = ops.add(ops.experts(context, ops.linear(context, router), 2, layer), one)
        for each in low:
            hidden = ops.linear(hidden, each)
        pooled = ops.pool(hidden, batch.layout, get_args(Pooling))
        first = ops.pool(q, batch.layout, ["cls"])
        first = ops.attention(first, k, v, spec, batch.layout, "cls")
        return ops.gelu(ops.add(ops.linear(pooled, out), ops.linear(first, first_out)))

    return run


def batch(*lengths: int) -> Batch:
    return NativeOps(1).batch([np.zeros(n, np.int32) for n in lengths])


def through(ops: NativeOps, x: NDArray[np.float32], layer: Any) -> NDArray[np.float32]:
    """The rows through the layer, on one thread."""

    def run(ops: Any, batch: Batch) -> Any:
        return ops.linear(ops.embedding(x, batch.ids), layer)

    return ops.compiled(run)(ops.batch([np.arange(len(x), dtype=np.int32)]))
