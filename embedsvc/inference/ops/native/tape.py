"""A forward pass written down as a tape: a list of instructions that C runs in one go.

The pass is traced once, with a `Tape` for its operations and `Value`s for its arrays. What follows
a product and touches only its result (an activation, a residual) becomes part of the product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.ops.base import Attention, Experts, Linear, Norm, check_chosen, columns

OPERATIONS: tuple[str, ...] = (
    *("embedding", "copy", "add", "multiply", "linear", "layer_norm", "rms_norm", "activation"),
    *("rope", "experts", "attention", "pool_mean", "pool_mean_sqrt_len"),
    *("pool_weighted_mean", "pool_max", "pool_cls", "pool_last_token"),
)
ACTIVATIONS = ("none", "gelu", "gelu_tanh", "silu", "tanh")
TOKENS, CHUNK, TEXTS = range(3)
FURTHEST = 1 << 31
"""Beyond any window: no text has so many tokens."""
BARRIER = OPERATIONS.index("attention")

_OPERAND = np.dtype([("buffer", "i8"), ("column", "i8")])
INSTRUCTION = np.dtype(
    [
        ("operation", "i8"),
        ("x", _OPERAND),
        ("y", _OPERAND),
        ("z", _OPERAND),
        ("out", _OPERAND),
        ("width", "i8"),
        ("inputs", "i8"),
        ("source", "i8"),
        ("rows", "i8"),
        ("activation", "i8"),
        ("weight", "u8"),
        ("bias", "u8"),
        ("weight_size", "i8"),
        ("bias_size", "i8"),
        ("heads", "i8"),
        ("kv_heads", "i8"),
        ("size", "i8"),
        ("causal", "i8"),
        ("window", "i8"),
        ("reach", "i8"),
        ("experts", "i8"),
        ("chosen", "i8"),
        ("scale", "f8"),
    ]
)
"""`Instruction` of tape.h."""
BUFFER = np.dtype([("width", "i8"), ("kind", "i8")])
"""`Buffer` of tape.h."""


class NotOnTape(Exception):
    """The pass uses an operation that kernels do not exist for."""


@dataclass(frozen=True, slots=True)
class Value:
    """An array of the pass, before it is run: rows of a buffer, from one column on."""

    buffer: int
    column: int
    width: int

    def __getitem__(self, key: tuple[slice, slice]) -> "Value":
        """Some columns of all rows: `value[:, start:stop]`."""
        rows, columns = key
        start, stop, step = columns.indices(self.width)
        if rows != slice(None) or step != 1:
            raise NotOnTape
        return Value(self.buffer, self.column + start, stop - start)


IDS, POSITIONS, TYPES, LAYOUT = object(), object(), object(), object()
"""What stands for a batch's ids, positions, types and layout while a pass is traced."""
SOURCES = (IDS, POSITIONS, TYPES)


@dataclass(frozen=True, slots=True)
class Weight:
    """A layer's weight as the kernels read it."""

    panels: NDArray[np.float32]  # (panels, in, columns of a panel), zero beyond the last column
    outputs: int


@dataclass(slots=True)
class _Step:
    operation: str
    out: Value
    x: Value | None = None
    y: Value | None = None
    z: Value | None = None
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Traced:
    """A pass, written down."""

    tape: NDArray[Any]  # of INSTRUCTION
    buffers: NDArray[Any]  # of BUFFER
    result: int  # buffer
    width: int
    per_text: bool  # whether the result has a row for each text, else for each token
    weights: tuple[NDArray[Any], ...]  # what the tape points to


class Tape:
    """The operations of `Ops` that kernels exist for, each writing itself down."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._widths: list[int] = []
        self._per_text: list[bool] = []
        self._weights: list[NDArray[Any]] = []

    def rows(self, function: Any, *inputs: Any) -> Value:
        return function(*inputs)

    def embedding(self, table: NDArray[np.float32], indices: object) -> Value:
        out = self._buffer(table.shape[1])
        source = next((n for n, each in enumerate(SOURCES) if each is indices), None)
        if source is None:
            raise NotOnTape
        self._step("embedding", out, table, source=source, rows=len(table))
        return out

    def looked_up(self, rows: int, indices: object) -> None:
        raise NotOnTape

    def copy(self, x: Value) -> Value:
        out = self._buffer(x.width, per_text=self._per_text[x.buffer])
        self._step("copy", out, x=x)
        return out

    def add(self, x: Value, y: Value | NDArray[np.float32]) -> Value:
        if not isinstance(y, Value):
            self._step("add", x, y)
            return x
        for product, other in ((x, y), (y, x)):
            step = self._open(product)
            if step and step.y is None and other.buffer != product.buffer:
                step.y = other
                return product
        self._step("add", x, y=y)
        return x

    def multiply(self, x: Value, y: Value) -> Value:
        self._step("multiply", x, y=y)
        return x

    def linear(self, x: Value, layer: Linear) -> Value:
        weight: Weight = layer.weight
        out = self._buffer(weight.outputs, per_text=self._per_text[x.buffer])
        self._step("linear", out, weight.panels, layer.bias, x=x, inputs=x.width)
        return out

    def layer_norm(self, x: Value, norm: Norm, eps: float) -> Value:
        self._step("layer_norm", x, norm.weight, norm.bias, scale=eps)
        return x

    def rms_norm(self, x: Value, weight: NDArray[np.float32], eps: float) -> Value:
        self._step("rms_norm", x, weight, size=len(weight), scale=eps)
        return x

    def gelu(self, x: Value) -> Value:
        return self._activation("gelu", x)

    def gelu_tanh(self, x: Value) -> Value:
        return self._activation("gelu_tanh", x)

    def silu(self, x: Value) -> Value:
        return self._activation("silu", x)

    def tanh(self, x: Value) -> Value:
        return self._activation("tanh", x)

    def rope(self, x: Value, table: NDArray[np.float32], positions: object) -> Value:
        if positions is not POSITIONS:
            raise NotOnTape
        size = table.shape[1]
        self._step(
            "rope",
            x,
            table,
            inputs=size,
            size=size,
            heads=x.width // size,
            source=SOURCES.index(POSITIONS),
            rows=len(table),
        )
        return x

    def experts(self, x: Value, scores: Value, chosen: int, layer: Experts) -> Value:
        check_chosen(chosen, scores.width, layer)
        out = self._buffer(x.width)
        up, down = layer.up, layer.down
        self._step(
            "experts",
            out,
            up,
            down,
            x=x,
            y=scores,
            inputs=down.shape[2],
            experts=len(up),
            chosen=chosen,
        )
        return out

    def attention(self, q: Value, k: Value, v: Value, spec: Attention, layout: object) -> Value:
        out = self._buffer(q.width)
        self._step(
            "attention",
            out,
            None,
            spec.bias,
            x=q,
            y=k,
            z=v,
            heads=spec.heads,
            kv_heads=spec.kv_heads,
            size=q.width // spec.heads,
            scale=spec.scale,
            causal=spec.causal,
            window=-1 if spec.window is None else min(spec.window, FURTHEST),
            reach=0 if spec.bias is None else (spec.bias.shape[1] + 1) // 2,
        )
        return out

    def pool(self, hidden: Value, layout: object, poolings: Sequence[Pooling]) -> Value:
        width = hidden.width
        out = self._buffer(width * len(poolings), per_text=True)
        parts = columns(out, *[width] * len(poolings))
        for part, pooling in zip(parts, poolings, strict=True):
            self._step(f"pool_{pooling}", part, x=hidden)
        return out

    def finish(self, result: Value) -> Traced:
        """The pass whose result is that value."""
        kinds = self._kinds(result.buffer)
        place = self._share(kinds, result.buffer)
        tape = np.zeros(len(self._steps), INSTRUCTION)
        for row, step in zip(tape, self._steps, strict=True):
            row["operation"] = OPERATIONS.index(step.operation)
            row["width"] = step.out.width
            for name in ("x", "y", "z", "out"):
                value: Value | None = getattr(step, name)
                row[name] = (-1, 0) if value is None else (place[value.buffer], value.column)
            for name, number in step.numbers.items():
                row[name] = number
        used = sorted(set(place))
        buffers = np.array([(self._widths[b], kinds[b]) for b in used], BUFFER)
        tape = _renumbered(tape, used)
        return Traced(
            tape,
            buffers,
            used.index(result.buffer),
            result.width,
            self._per_text[result.buffer],
            tuple(self._weights),
        )

    def _buffer(self, width: int, *, per_text: bool = False) -> Value:
        self._widths.append(width)
        self._per_text.append(per_text)
        return Value(len(self._widths) - 1, 0, width)

    def _step(
        self,
        operation: str,
        out: Value,
        weight: NDArray[np.float32] | None = None,
        bias: NDArray[np.float32] | None = None,
        *,
        x: Value | None = None,
        y: Value | None = None,
        z: Value | None = None,
        **numbers: Any,
    ) -> None:
        for name, array in (("weight", weight), ("bias", bias)):
            if array is not None:
                array = np.require(array, np.float32, ["C", "A"])  # in general it is that
                self._weights.append(array)
                numbers |= {name: array.ctypes.data, f"{name}_size": array.size}
        self._steps.append(_Step(operation, out, x, y, z, numbers))

    def _open(self, value: Value) -> _Step | None:
        """The last step, if it is a product that gave just this value and may do more to it."""
        step = self._steps[-1]
        is_product = step.operation == "linear" and step.out == value
        return step if is_product and "activation" not in step.numbers else None

    def _activation(self, name: str, x: Value) -> Value:
        number = ACTIVATIONS.index(name)
        step = self._open(x)
        if step:
            step.numbers["activation"] = number
        else:
            self._step("activation", x, activation=number)
        return x

    def _uses(self) -> list[list[int]]:
        """The numbers of the steps that touch each buffer."""
        uses: list[list[int]] = [[] for _ in self._widths]
        for number, step in enumerate(self._steps):
            for value in (step.x, step.y, step.z, step.out):
                if value is not None:
                    uses[value.buffer].append(number)
        return uses

    def _kinds(self, result: int) -> list[int]:
        """TOKENS, CHUNK or TEXTS for each buffer; CHUNK where no other run of steps needs it."""
        run, runs = 0, list[int]()
        for step in self._steps:
            whole = OPERATIONS.index(step.operation) >= BARRIER or self._per_text[step.out.buffer]
            run += whole
            runs.append(run)
            run += whole
        kinds = [TEXTS if per_text else TOKENS for per_text in self._per_text]
        for buffer, steps in enumerate(self._uses()):
            if kinds[buffer] == TOKENS and buffer != result and len({runs[s] for s in steps}) == 1:
                kinds[buffer] = CHUNK
        return kinds

    def _share(self, kinds: list[int], result: int) -> list[int]:
        """For each buffer the one whose memory it takes: its own, or one no longer needed."""
        uses = self._uses()
        place = list(range(len(self._widths)))
        free_from: dict[int, int] = {}  # memory -> the last step that needs it
        for buffer in sorted(place, key=lambda b: uses[b][0]):
            if buffer == result:
                continue
            for other, last in free_from.items():
                alike = kinds[other] == kinds[buffer], self._widths[other] == self._widths[buffer]
                if all(alike) and last < uses[buffer][0]:
                    place[buffer] = other
                    break
            free_from[place[buffer]] = uses[buffer][-1]
        return place


def _renumbered(tape: NDArray[Any], used: list[int]) -> NDArray[Any]:
    """The tape with buffers numbered by their place in `used`."""
    number = np.full(max(used) + 2, -1)  # the last stands for none, -1
    number[used] = np.arange(len(used))
    for name in ("x", "y", "z", "out"):
        tape[name]["buffer"] = number[tape[name]["buffer"]]
    return tape
