"""Random passes, tapes and indices against the kernels: python -m tests.kernels.fuzz SEED PASSES.

To be run on a library built with sanitizers, named by KERNELS. Each pass is compared with NumPy;
then its tape, its batch and its memory are tampered with, and it has to be refused, or do no harm.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.quantized import quantize
from embedsvc.errors import CheckpointError, EmbeddingFailed
from embedsvc.inference.ops.activations import Activation, Name
from embedsvc.inference.ops.base import Attention, Batch, Norm, columns, rope_table
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.encoding import Encoded
from embedsvc.inference.ops.native.library import Kernels
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.inference.ops.numpy.layout import PackedLayout

ROWS = 40
"""Rows of each table, and tokens of the longest text."""
TYPES = 3
"""Rows of the table of types."""
HOSTILE = [0, 1, 2, 3, 5, 7, 8, 16, 64, 1000, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1]
HOSTILE += [-number for number in HOSTILE] + [-(2**63)]
WEIGHTS = ("weight", "bias", "down", "words", "scales")
TRUSTED = {"scale", "epsilon", *WEIGHTS, *(f"{name}_size" for name in WEIGHTS)}
"""Fields that C cannot check: where weights are, and how many numbers they have."""
WILD = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 88, -104], np.float32)
POOLINGS = get_args(Pooling)
STEADY = [name for name in get_args(Name) if name not in ("relu2", "xielu")]
"""The activations that do not square what they are given, several times in a row."""
Make = Callable[[Any], Callable[[Any, Batch], Any]]


class Random(np.random.Generator):
    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.steady = True
        """Whether rounding changes the result only a little. It may decide which expert is best."""

    def upto(self, most: int) -> int:
        return int(self.integers(1, most + 1))

    def one(self, of: Sequence[Any]) -> Any:
        return of[int(self.integers(len(of)))]

    def floats(self, *shape: int) -> Any:
        return self.normal(size=shape).astype(np.float32)


def random_pass(random: Random) -> Make:
    """A pass of random steps. Its weights are chosen here: all backends have the same."""
    width = random.upto(70)
    words, places = random.floats(ROWS, width), random.floats(ROWS, width)
    types = random.floats(TYPES, width) if random.upto(2) == 1 else None
    makers = [random.one(STEPS)(random, width) for _ in range(random.upto(6))]
    pools = [random.one(POOLINGS) for _ in range(int(random.integers(3)))]
    if random.upto(2) == 1:
        makers, pools = [*makers, last_layer(random, width)], []
    last = random.floats(random.upto(60), width * max(1, len(pools)))

    def make(ops: Any) -> Callable[[Any, Batch], Any]:
        steps = [maker(ops) for maker in makers]
        layer = ops.linear_layer(last, None)

        def run(ops: Any, batch: Batch) -> Any:
            hidden = ops.add(
                ops.embedding(words, batch.ids), ops.embedding(places, batch.positions)
            )
            if types is not None:
                hidden = ops.add(hidden, ops.embedding(types, batch.types))
            for step in steps:
                hidden = step(ops, hidden, batch)
            if pools:
                hidden = ops.pool(hidden, batch.layout, pools)
            return ops.linear(hidden, layer)

        return run

    return make


def norm(random: Random, width: int) -> Any:
    shift = random.floats(width) if random.upto(2) == 1 else None
    given = Norm(random.floats(width), shift)
    return lambda ops: lambda ops, x, batch: ops.layer_norm(x, given, 0.01)


def rms_norm(random: Random, width: int) -> Any:
    weight = random.floats(random.one([n for n in range(1, width + 1) if width % n == 0]))
    return lambda ops: lambda ops, x, batch: ops.rms_norm(x, weight, 0.01)


def activation(random: Random, width: int) -> Any:
    name = random.one(STEADY)
    given = Activation(name, (0.3,) if name == "prelu" else ())
    return lambda ops: lambda ops, x, batch: ops.activate(x, given)


def gated(random: Random, width: int) -> Any:
    inner = random.upto(100)
    up, down = random.floats(2 * inner, width) / 8, random.floats(width, inner) / 8
    bias = random.floats(2 * inner)

    def make(ops: Any) -> Any:
        up_gate, out = ops.linear_layer(up, bias), ops.linear_layer(down, None)

        def step(ops: Any, x: Any, batch: Batch) -> Any:
            gate, more = columns(ops.linear(x, up_gate), inner, inner)
            return ops.add(ops.linear(ops.multiply(ops.silu(gate), more), out), x)

        return step

    return make


def attention(random: Random, width: int) -> Any:
    kv_heads, size = random.upto(3), random.upto(40)
    heads = kv_heads * random.upto(3)
    widths = (heads * size, kv_heads * size, kv_heads * size)
    project, back = random.floats(sum(widths), width) / 8, random.floats(width, widths[0]) / 8
    spec = Attention(
        heads,
        kv_heads,
        scale=float(size**-0.5),
        causal=random.upto(2) == 1,
        window=random.one([None, 0, 1, 5, 100, 2**40]),
        bias=random.floats(heads, 2 * ROWS - 1) if random.upto(3) == 1 else None,
    )
    turns = rope_table(size, 100.0, ROWS) if size % 2 == 0 else None

    def make(ops: Any) -> Any:
        qkv, out = ops.linear_layer(project, None), ops.linear_layer(back, None)

        def step(ops: Any, x: Any, batch: Batch) -> Any:
            q, k, v = columns(ops.linear(x, qkv), *widths)
            if turns is not None:
                q, k = (ops.rope(part, turns, batch.positions) for part in (q, k))
            return ops.add(ops.linear(ops.attention(q, k, v, spec, batch.layout), out), x)

        return step

    return make


def last_layer(random: Random, width: int) -> Any:
    """Attention of one query of each text, and something behind it."""
    heads, size, read = random.upto(3), random.upto(40), random.one(["cls", "last_token"])
    project = random.floats(3 * heads * size, width) / 8
    back = random.floats(width, heads * size) / 8
    spec = Attention(
        heads,
        heads,
        scale=float(size**-0.5),
        causal=random.upto(2) == 1,
        window=random.one([None, 0, 1, 5, 100, 2**40]),
        bias=random.floats(heads, 2 * ROWS - 1) if random.upto(3) == 1 else None,
    )

    def make(ops: Any) -> Any:
        qkv, out = ops.linear_layer(project, None), ops.linear_layer(back, None)

        def step(ops: Any, x: Any, batch: Batch) -> Any:
            q, k, v = columns(ops.linear(x, qkv), *[heads * size] * 3)
            q, x = (ops.pool(each, batch.layout, [read]) for each in (q, x))
            context = ops.attention(q, k, v, spec, batch.layout, read)
            return ops.gelu(ops.add(ops.linear(context, out), x))

        return step

    return make


def experts(random: Random, width: int) -> Any:
    count, inner = random.upto(6), random.upto(40)
    up, down = random.floats(count, inner, width) / 8, random.floats(count, width, inner) / 8
    router, bias = random.floats(count, width), random.floats(width)
    chosen = random.one([count, random.upto(count)])
    random.steady = random.steady and chosen == count

    def make(ops: Any) -> Any:
        scores, layer = ops.linear_layer(router, None), ops.experts_layer(up, down)

        def step(ops: Any, x: Any, batch: Batch) -> Any:
            return ops.add(ops.experts(x, ops.linear(x, scores), chosen, layer), bias)

        return step

    return make


def quantized(random: Random, width: int) -> Any:
    """Rows of a table and a layer, whose weights stay quantised."""
    group, bits = random.one([32, 64, 128]), random.one([3, 4, 8])
    inner = group * random.upto(2)
    up, bias = random.floats(inner, width) / 8, random.floats(width)
    table = quantize(random.floats(ROWS, inner), group, bits)
    down = quantize(random.floats(width, inner) / 8, group, bits)

    def make(ops: Any) -> Any:
        wider, rows, layer = (
            ops.linear_layer(up, None),
            ops.table(table),
            ops.linear_layer(down, bias),
        )

        def step(ops: Any, x: Any, batch: Batch) -> Any:
            wide = ops.add(ops.embedding(rows, batch.ids), ops.linear(x, wider))
            return ops.add(ops.linear(wide, layer), x)

        return step

    return make


STEPS = (norm, rms_norm, activation, gated, attention, experts, quantized)


def random_batch(random: Random, window: int) -> Batch:
    """Some texts, of which each token sees one that is no further away than `window`."""
    lengths = [random.one([1, 2, 3, 16, 17, random.upto(ROWS)]) for _ in range(random.upto(9))]
    if random.upto(4) == 1:
        lengths = [random.upto(ROWS)]
    texts = [random.integers(0, ROWS, n).astype(np.int32) for n in sorted(lengths)]
    types = [random.integers(0, TYPES, len(text), "i4") for text in texts]
    seen = [len(text) - int(random.integers(0, min(window + 1, len(text)))) for text in texts]
    if random.upto(2) == 1:
        return NumpyOps(1).batch(texts, types, seen)
    return NumpyOps(1).batch(texts, types)


def tampered_tape(random: Random, traced: Encoded) -> Encoded:
    """The pass, with one or two numbers of its tape, its buffers or its result replaced."""
    tape, buffers, results = traced.tape.copy(), traced.buffers.copy(), traced.results.copy()
    fields = [name for name in tape.dtype.names or () if name not in {*TRUSTED, *"xyz", "out"}]
    for _ in range(random.upto(2)):
        at = int(random.integers(len(tape)))
        match random.upto(12):
            case 1:
                name = random.one(["width", "kind"])
                buffers[name][int(random.integers(len(buffers)))] = random.one(HOSTILE)
            case 2:
                results[-1] = random.one(HOSTILE)
            case 3:
                tape = np.delete(tape, at) if len(tape) > 1 else tape
            case 4 | 5 | 6:
                operand, part = random.one([*"xyz", "out"]), random.one(["buffer", "column"])
                tape[operand][part][at] = random.one([*HOSTILE, *range(len(buffers))])
            case _:
                tape[random.one(fields)][at] = random.one(HOSTILE)
    return replace(traced, tape=tape, buffers=buffers, results=results)


def hostile_index(random: Random) -> int:
    """An int32, often one for which no table has a row."""
    return (random.one([*HOSTILE, TYPES, ROWS]) + 2**31) % 2**32 - 2**31


def tampered_batch(random: Random, batch: Batch) -> Batch:
    bounds = batch.layout.bounds.copy()
    ids, positions = batch.ids.copy(), batch.positions.copy()
    types = None if batch.types is None else batch.types.copy()
    seen = None if batch.layout.seen is None else batch.layout.seen.copy()
    match random.upto(6):
        case 1:
            bounds[int(random.integers(len(bounds)))] = random.one(HOSTILE)
        case 2:
            ids[int(random.integers(len(ids)))] = hostile_index(random)
        case 3 if types is not None:
            types[int(random.integers(len(ids)))] = hostile_index(random)
        case 4:
            types = None
        case 5 if seen is not None:
            seen[int(random.integers(len(seen)))] = random.one(HOSTILE)
        case _:
            at = int(random.integers(len(ids)))
            positions[at] = hostile_index(random)
    return Batch(ids, positions, PackedLayout(bounds, batch.layout.runs, seen), types)


class Fuzz:
    def __init__(self, seed: int, kernels: Kernels) -> None:
        self.random = Random(seed)
        self.all_ops = [NativeOps(2, kernels, dtype) for dtype in NativeOps.dtypes]
        names = self.all_ops[0]._library.declared.operations
        self.attention = [names.index(name) for name in ("attention", "attention_bfloat16")]
        self.seen: Counter[str] = Counter()

    def round(self, number: int) -> None:
        self.ops = self.all_ops[number % len(self.all_ops)]
        self.random.steady = self.ops.dtype == "float32"
        make = random_pass(self.random)
        traced = self.ops.trace(make(self.ops))
        attends = np.isin(traced.tape["operation"], self.attention)
        windows = traced.tape["window"][attends & (traced.tape["window"] >= 0)]
        batch = random_batch(self.random, int(windows.min(initial=ROWS)))
        program = self.ops.program(traced)
        expected = NumpyOps(1).compiled(make(NumpyOps(1)))(batch)
        found = program.run(batch)
        assert np.isfinite(found).all()
        if self.random.steady:
            bound = 1e-4 * max(1.0, float(np.abs(expected).max()))
            assert np.abs(found - expected).max() <= bound, "differs from NumPy"
            self.seen["right"] += 1
        self.seen[self.ops.dtype] += 1
        for _ in range(10):
            tape, other = tampered_tape(self.random, traced), tampered_batch(self.random, batch)
            self.tried("tape", lambda tape=tape: self.ops.program(tape).run(batch))
            self.tried("batch", lambda other=other: program.run(other))
        self.with_wild_numbers(traced, batch)
        self.without_memory(traced, batch)
        assert np.array_equal(program.run(batch), found), "differs from itself"

    def tried(self, what: str, run: Callable[[], object]) -> None:
        try:
            run()
        except (CheckpointError, EmbeddingFailed, MemoryError, ValueError) as error:
            self.seen[f"{what} refused ({type(error).__name__})"] += 1
        else:
            self.seen[f"{what} harmless"] += 1

    def with_wild_numbers(self, traced: Encoded, batch: Batch) -> None:
        """Run the pass with weights that are NaN or infinite: it must end, whatever it computes."""
        kept = [weight.copy() for weight in traced.weights]
        for weight in (each for each in traced.weights if each.dtype == np.float32):
            weight.setflags(write=True)
            places = self.random.random(weight.shape) < 0.2
            weight[places] = self.random.choice(WILD, places.sum())
        self.ops.program(traced).run(batch)
        for weight, before in zip(traced.weights, kept, strict=True):
            weight[...] = before

    def without_memory(self, traced: Encoded, batch: Batch) -> None:
        """Let each allocation fail in turn, until there are no more."""
        allow: Any = self.ops._library.functions.embedsvc_allow
        allow.argtypes, allow.restype = [library.ctypes.c_int64], None
        for allowed in range(1000):
            self.ops.release()
            allow(allowed)
            try:
                self.ops.program(traced).run(batch)
            except MemoryError:
                self.seen["no memory"] += 1
            else:
                break
            finally:
                allow(-1)
        else:
            raise AssertionError("it allocates without end")


def main() -> None:
    seed, rounds = map(int, sys.argv[1:])
    library.LIBRARY = Path(os.environ["KERNELS"])
    for kernels in library.load().kernels:
        fuzz = Fuzz(seed, kernels)
        for number in range(rounds):
            fuzz.round(number)
        print(*kernels[1:2], *kernels[3:], dict(sorted(fuzz.seen.items())), flush=True)


if __name__ == "__main__":
    main()
