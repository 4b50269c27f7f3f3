"""Tracing: a forward pass is written down, step by step, so that C can run it in one call.

The pass is called once, with a `Tape` for its operations and `Value`s for its arrays. What follows
a product and touches only its result (an activation, a residual) becomes part of the product.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import (
    Attention,
    Batch,
    Experts,
    Floats,
    Linear,
    Norm,
    Read,
    check_chosen,
    columns,
)
from embedsvc.inference.ops.native.formats import PRODUCTS
from embedsvc.inference.ops.native.formats.base import PackedWeight
from embedsvc.inference.ops.native.formats.quantized import QuantizedTable
from embedsvc.inference.ops.native.steps import NotOnTape, Rows, Step, Value

MAX_WINDOW = 1 << 31
"""A window that hides nothing: no text has so many tokens."""

IDS, POSITIONS, TYPES, LAYOUT = object(), object(), object(), object()
"""What stands for a batch's ids, positions, types and layout while a pass is traced."""
FOLDED = ("gelu", "gelu_tanh", "silu", "tanh", "relu")
"""The activations that products apply themselves: the first ones in operations.def."""
SOURCES = (("IDS", IDS), ("POSITIONS", POSITIONS), ("TYPES", TYPES))
"""The arrays with a number for each token by which a table's rows are looked up, under their names
in operations.def."""


class Tape:
    """The operations of `Ops` that kernels exist for. Each call is written down as a step."""

    def __init__(self, attention: str = "attention") -> None:
        self.attends_by = attention
        """The operation that attention becomes."""
        self.steps: list[Step] = []
        self.buffers: list[Rows] = []

    def __getattr__(self, name: str) -> Any:
        """An operation without a kernel. Raises `NotOnTape`: such a pass runs on NumPy."""
        raise NotOnTape(name)

    def rows(self, function: Callable[..., Any], *inputs: Any) -> Any:
        return function(*inputs)

    def embedding(self, table: NDArray[Any] | QuantizedTable, indices: object) -> Value:
        source = next((name for name, each in SOURCES if each is indices), None)
        if source is None:
            raise NotOnTape
        out = self._buffer(table.shape[1])
        if isinstance(table, QuantizedTable):
            numbers = {"source": source, **table.numbers}
            step = Step("embedding_quantized", out, arrays=table.arrays, numbers=numbers)
            self.steps.append(step)
        elif table.dtype == np.uint16:  # bfloat16, as `NativeOps.table` has it
            numbers = {"source": source, "rows": len(table)}
            arrays = {"words": table.view(np.int32)}
            self.steps.append(Step("embedding_bfloat16", out, arrays=arrays, numbers=numbers))
        else:
            self._step("embedding", out, weight=table, source=source, rows=len(table))
        return out

    def copy(self, x: Value) -> Value:
        out = self._buffer_like(x, x.width)
        self._step("copy", out, x=x)
        return out

    def add(self, x: Value, y: Value | Floats) -> Value:
        if not isinstance(y, Value):
            self._step("add", x, weight=y)
            return x
        for product, other in ((x, y), (y, x)):
            step = self._open_product(product)
            if step and step.y is None and other.buffer != product.buffer:
                step.y = other
                return product
        self._step("add", x, y=y)
        return x

    def multiply(self, x: Value, y: Value) -> Value:
        self._step("multiply", x, y=y)
        return x

    def linear(self, x: Value, layer: Linear) -> Value:
        packed: PackedWeight = layer.weight
        out = self._buffer_like(x, packed.outputs)
        arrays, numbers = dict(packed.arrays), {"inputs": x.width, **packed.numbers}
        self.steps.append(Step(packed.operation, out, x=x, arrays=arrays, numbers=numbers))
        return out

    def layer_norm(self, x: Value, norm: Norm, eps: float) -> Value:
        self._step("layer_norm", x, weight=norm.weight, bias=norm.bias, epsilon=eps)
        return x

    def rms_norm(self, x: Value, weight: Floats, eps: float) -> Value:
        self._step("rms_norm", x, weight=weight, size=len(weight), epsilon=eps)
        return x

    def gelu(self, x: Value) -> Value:
        return self._activation("gelu", x)

    def gelu_tanh(self, x: Value) -> Value:
        return self._activation("gelu_tanh", x)

    def silu(self, x: Value) -> Value:
        return self._activation("silu", x)

    def activate(self, x: Value, activation: Activation) -> Value:
        if activation.name == "linear":
            return x
        if activation.numbers:
            self._step(activation.name, x, weight=np.array(activation.numbers, np.float32))
            return x
        return self._activation(activation.name, x)

    def rope(self, x: Value, table: Floats, positions: object) -> Value:
        if positions is not POSITIONS:
            raise NotOnTape
        rows, size = table.shape
        self._step(
            "rope",
            x,
            weight=table,
            rotated=size,
            size=size,
            heads=x.width // size,
            source="POSITIONS",
            rows=rows,
        )
        return x

    def experts(self, x: Value, scores: Value, chosen: int, layer: Experts) -> Value:
        check_chosen(chosen, scores.width, layer)
        out = self._buffer_like(x, x.width)
        self._step(
            "experts",
            out,
            x=x,
            y=scores,
            weight=layer.up,
            down=layer.down,
            inner=layer.down.shape[2],
            experts=len(layer.up),
            chosen=chosen,
        )
        return out

    def attention(
        self, q: Value, k: Value, v: Value, spec: Attention, layout: object, read: Read = "all"
    ) -> Value:
        if spec.relative is not None:
            raise NotOnTape
        out = self._buffer_like(q, q.width)
        self._step(
            self.attends_by,
            out,
            x=q,
            y=k,
            z=v,
            bias=spec.bias,
            heads=spec.heads,
            kv_heads=spec.kv_heads,
            size=q.width // spec.heads,
            scale=spec.scale,
            causal=spec.causal,
            window=-1 if spec.window is None else min(spec.window, MAX_WINDOW),
            reach=0 if spec.bias is None else (spec.bias.shape[1] + 1) // 2,
            read=read,
        )
        return out

    def pool(self, hidden: Value, layout: object, poolings: Sequence[Pooling]) -> Value:
        widths = [hidden.width] * len(poolings)
        out = self._buffer(sum(widths), per_text=True)
        for part, pooling in zip(columns(out, *widths), poolings, strict=True):
            self._step(f"pool_{pooling}", part, x=hidden)
        return out

    def side_by_side(self, parts: Sequence[Value]) -> Value:
        widths = [part.width for part in parts]
        out = self._buffer_like(parts[0], sum(widths))
        for place, part in zip(columns(out, *widths), parts, strict=True):
            self._step("copy", place, x=part)
        return out

    def _buffer(self, width: int, *, per_text: bool = False) -> Value:
        self.buffers.append(Rows(width, per_text))
        return Value(len(self.buffers) - 1, 0, width)

    def _buffer_like(self, x: Value, width: int) -> Value:
        """A buffer with as many rows as x."""
        return self._buffer(width, per_text=self.buffers[x.buffer].per_text)

    def _step(
        self,
        operation: str,
        out: Value,
        *,
        x: Value | None = None,
        y: Value | None = None,
        z: Value | None = None,
        weight: Floats | None = None,
        bias: Floats | None = None,
        down: Floats | None = None,
        **numbers: Any,
    ) -> None:
        arrays = {"weight": weight, "bias": bias, "down": down}
        self.steps.append(Step(operation, out, x, y, z, _contiguous(arrays), numbers))

    def _open_product(self, value: Value) -> Step | None:
        """The last step, if it is a product that gave just this value and may do more to it."""
        step = self.steps[-1]
        is_product = step.operation in PRODUCTS and step.out == value
        return step if is_product and "activation" not in step.numbers else None

    def _activation(self, name: str, x: Value) -> Value:
        step = self._open_product(x)
        if step and name in FOLDED:
            step.numbers["activation"] = name
        else:
            self._step("activation", x, activation=name)
        return x


def trace(function: Callable[[Any, Batch], Any], tape: Tape) -> tuple[Tape, list[Value]]:
    """The pass `function(ops, batch)` written down on a tape, and its results, of which it returns
    one or a tuple.

    Raises `NotOnTape`.
    """
    returned = function(tape, Batch(IDS, POSITIONS, LAYOUT, TYPES))
    values = cast(Sequence[Value], returned if isinstance(returned, tuple) else (returned,))
    results: list[Value] = []
    for value in values:
        taken = {result.buffer for result in results}
        own = value.buffer not in taken and value.width == tape.buffers[value.buffer].width
        results.append(value if own else tape.copy(value))
    return tape, results


def _contiguous(arrays: Mapping[str, Floats | None]) -> dict[str, NDArray[Any]]:
    """Those that are there, as C reads them; in general they are so already."""
    return {
        name: np.require(array, np.float32, ["C", "A"])
        for name, array in arrays.items()
        if array is not None
    }
