"""Passes on the kernels in C give what NumPy gives, however they are shared out."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.catalog.cards import Pooling
from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Attention, Batch, Norm, Read, columns, rope_table
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.steps import NotOnTape
from embedsvc.inference.ops.numpy import NumpyOps

LENGTHS = [[1], [2, 3], [16] * 3, [5, 17, 130], [300]]
ROWS = max(map(sum, LENGTHS))
Pass = Callable[[Any, Batch], Any]


def table(random: np.random.Generator, width: int, rows: int = ROWS) -> NDArray[np.float32]:
    return random.normal(size=(rows, width)).astype(np.float32)


def texts(lengths: list[int]) -> list[NDArray[np.int32]]:
    """Texts whose tokens are 0, 1, 2, ...: an embedding gives each row of a batch its own."""
    return np.split(np.arange(sum(lengths), dtype=np.int32), np.cumsum(lengths)[:-1])


def result(ops: NumpyOps, make: Callable[[Any], Pass], lengths: list[int]) -> NDArray[np.float32]:
    return ops.compiled(make(ops))(ops.batch(texts(lengths)))


def check(make: Callable[[Any], Pass], lengths: list[int], bound: float = 2e-6) -> None:
    """Every instruction set of this processor gives what NumPy gives."""
    expected = result(NumpyOps(), make, lengths)
    for kernels in {each.name: each for each in library.load().kernels}.values():
        found = result(NativeOps(2, kernels), make, lengths)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= bound * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("width", [1, 7, 16, 48, 100])
@pytest.mark.parametrize(
    "name", ["gelu", "gelu_tanh", "silu", "layer_norm", "rms_norm", "add", "multiply", "copy"]
)
def test_rows(name: str, width: int, lengths: list[int], random: np.random.Generator) -> None:
    x, y = 3 * table(random, width), table(random, width)
    weight, bias = table(random, width, 2)

    def make(ops: Any) -> Pass:
        more: dict[str, tuple[Any, ...]] = {
            "layer_norm": (Norm(weight, bias), 1e-5),
            "rms_norm": (weight, 1e-6),
        }

        def run(ops: Any, batch: Batch) -> Any:
            rows = ops.embedding(x, batch.ids)
            if name in ("add", "multiply"):
                return getattr(ops, name)(rows, ops.embedding(y, batch.positions))
            return getattr(ops, name)(rows, *more.get(name, ()))

        return run

    check(make, lengths)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (7, 50), (16, 48), (33, 96), (100, 145)])
def test_products_and_what_is_folded_into_them(
    inputs: int, outputs: int, lengths: list[int], biased: bool, random: np.random.Generator
) -> None:
    x, residual = table(random, inputs), table(random, outputs)
    weight = random.normal(size=(outputs, inputs)) / inputs**0.5
    bias = random.normal(size=outputs) if biased else None

    def make(ops: Any) -> Pass:
        layer = ops.linear_layer(weight, bias)

        def run(ops: Any, batch: Batch) -> Any:
            rows = ops.embedding(x, batch.ids)
            plain = ops.linear(rows, layer)
            active = ops.gelu(ops.linear(rows, layer))
            more = ops.add(ops.linear(rows, layer), ops.embedding(residual, batch.ids))
            # The same two from the other side, where nothing can be folded.
            other = ops.add(ops.embedding(residual, batch.ids), ops.gelu(ops.linear(rows, layer)))
            return ops.add(ops.add(plain, active), ops.multiply(more, other))

        return run

    check(make, lengths, bound=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", [4, 16, 32, 64, 72])
@pytest.mark.parametrize(
    "spec",
    [
        Attention(4, 4),
        Attention(4, 2, scale=0.3),
        Attention(4, 4, causal=True),
        Attention(4, 1, window=3, causal=True),
        Attention(4, 4, window=20),
        Attention(
            4, 4, bias=np.random.default_rng(7).normal(size=(4, 2 * ROWS - 1)).astype(np.float32)
        ),
        Attention(4, 4, window=1, bias=np.ones((4, 2 * ROWS - 1), np.float32)),
    ],
    ids=["plain", "grouped", "causal", "causal window", "window", "bias", "bias window"],
)
def test_attention(
    spec: Attention, size: int, lengths: list[int], random: np.random.Generator
) -> None:
    widths = [4 * size, spec.kv_heads * size, spec.kv_heads * size]
    qkv = table(random, sum(widths))
    scaled = replace(spec, scale=spec.scale * size**-0.5)

    def make(ops: Any) -> Pass:
        def run(ops: Any, batch: Batch) -> Any:
            q, k, v = columns(ops.embedding(qkv, batch.ids), *widths)
            return ops.attention(q, k, v, scaled, batch.layout)

        return run

    check(make, lengths)


@pytest.mark.parametrize("read", ["cls", "last_token"])
@pytest.mark.parametrize("size", [4, 32, 72])
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"causal": True},
        {"window": 20},
        {"window": 3, "causal": True},
        {"bias": np.linspace(-3, 3, 4 * (2 * ROWS - 1), dtype=np.float32).reshape(4, -1)},
    ],
    ids=["plain", "causal", "window", "causal window", "bias"],
)
def test_attention_of_one_query_of_each_text(
    kind: dict[str, Any], kv_heads: int, size: int, read: Read, random: np.random.Generator
) -> None:
    widths = [4 * size, kv_heads * size, kv_heads * size]
    qkv = table(random, sum(widths))
    spec = Attention(4, kv_heads, scale=size**-0.5, **kind)

    def make(ops: Any) -> Pass:
        def run(ops: Any, batch: Batch) -> Any:
            q, k, v = columns(ops.embedding(qkv, batch.ids), *widths)
            q = ops.pool(q, batch.layout, [read])
            return ops.attention(q, k, v, spec, batch.layout, read)

        return run

    for lengths in LENGTHS:
        check(make, lengths)


@pytest.mark.parametrize("size", [1000.0, -1000.0])
def test_attention_holds_where_scores_are_huge(size: float) -> None:
    qkv = np.ones((3, 3), dtype=np.float32)
    qkv[:, 1] = size * np.arange(3)  # the last key (or, negated, the first) takes it all
    qkv[:, 2] = np.arange(3)

    def make(ops: Any) -> Pass:
        def run(ops: Any, batch: Batch) -> Any:
            q, k, v = columns(ops.embedding(qkv, batch.ids), 1, 1, 1)
            return ops.attention(q, k, v, Attention(1, 1), batch.layout)

        return run

    found = result(NativeOps(1), make, [3])
    assert np.abs(found - (2 if size > 0 else 0)).max() <= 1e-6


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("size", [2, 6, 32, 64])
def test_rope_turns_columns_of_a_product(
    size: int, lengths: list[int], random: np.random.Generator
) -> None:
    x, turns = table(random, 5 * size), rope_table(size, 1e4, ROWS)

    def make(ops: Any) -> Pass:
        def run(ops: Any, batch: Batch) -> Any:
            q, k, v = columns(ops.embedding(x, batch.ids), 3 * size, size, size)
            q, k = (ops.rope(part, turns, batch.positions) for part in (q, k))
            return ops.attention(q, ops.copy(k), v, Attention(3, 1, scale=size**-0.5), batch.layout)

        return run

    check(make, lengths)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_a_row_for_each_text(
    pooling: Pooling, lengths: list[int], random: np.random.Generator
) -> None:
    x = table(random, 50)
    weight, bias = table(random, 50, 100).T, np.zeros(50)

    def make(ops: Any) -> Pass:
        layer = ops.linear_layer(weight, bias)

        def run(ops: Any, batch: Batch) -> Any:
            rows = ops.embedding(x, batch.ids)
            pooled = ops.pool(rows, batch.layout, [pooling, "cls"])
            projected = ops.gelu(ops.linear(pooled, layer))
            return ops.add(projected, ops.pool(rows, batch.layout, ["max"]))

        return run

    check(make, lengths)


def test_extreme_values_stay_finite_and_what_is_not_finite_shows() -> None:
    numbers = [-1e30, -1e4, -6.5, 0, 6.5, 1e4, 1e30, np.nan, np.inf, -np.inf]
    x = np.array([numbers], dtype=np.float32)
    for name in ("gelu", "gelu_tanh", "silu"):
        ops = NativeOps(1)

        def run(ops: Any, batch: Batch, name: str = name) -> Any:
            return getattr(ops, name)(ops.embedding(x, batch.ids))

        (found,) = ops.compiled(run)(ops.batch([np.zeros(1, np.int32)]))
        assert np.abs(found[:4]).max() <= 1e-2
        assert np.abs(found[:2]).max() <= 1e-7
        assert np.abs(found[4:7] / x[0, 4:7] - 1).max() <= 2e-3
        assert not np.isfinite(found[7:]).any()


def test_passes_beside_each_other_and_alone_agree(
    minilm: Checkpoint, random: np.random.Generator
) -> None:
    encoder = load_encoder(NativeOps(3), minilm)
    batches = [
        [random.integers(1000, 20000, n).astype(np.int32) for n in lengths]
        for lengths in ([3], [16], [9, 40, 16, 2], [130], [20] * 12)
    ]
    alone = [encoder.encode(batch) for batch in batches]
    wrong: list[int] = []

    def work(first: int) -> None:
        for step in range(25):
            number = (first + step) % len(batches)
            if np.abs(encoder.encode(batches[number]) - alone[number]).max() > 1e-6:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("width", "inner"), [(8, 12), (50, 97)])
def test_a_mixture_of_experts(
    width: int, inner: int, lengths: list[int], random: np.random.Generator
) -> None:
    x, bias = table(random, width), table(random, width, 1)[0]
    up, down = random.normal(size=(5, inner, width)), random.normal(size=(5, width, inner))
    scores = random.normal(size=(5, width))

    def make(ops: Any) -> Pass:
        router, layer = ops.linear_layer(scores, None), ops.experts_layer(up, down)

        def run(ops: Any, batch: Batch) -> Any:
            rows = ops.embedding(x, batch.ids)
            return ops.add(ops.experts(rows, ops.linear(rows, router), 2, layer), bias)

        return run

    check(make, lengths, bound=1e-5)


def test_an_operation_that_the_tape_does_not_know_leaves_the_pass_to_numpy(
    random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one may have its kernel later."""
    x = table(random, 8)

    def halved(self: NumpyOps, x: np.ndarray) -> np.ndarray:
        return x / 2

    monkeypatch.setattr(NumpyOps, "halved", halved, raising=False)

    def make(ops: Any) -> Pass:
        return lambda ops, batch: ops.halved(ops.embedding(x, batch.ids))

    check(make, [5, 17], bound=0)


def test_an_operation_without_a_kernel_leaves_the_pass_to_numpy(
    random: np.random.Generator,
) -> None:
    x, weight = table(random, 8), random.normal(size=(12, 8))
    up, down = random.normal(size=(12, 5, 8)), random.normal(size=(12, 8, 5))

    def make(ops: Any) -> Pass:
        router, layer = ops.linear_layer(weight, None), ops.experts_layer(up, down)
        places = np.arange(22, dtype=np.int32)[::-1].copy()

        def run(ops: Any, batch: Batch) -> Any:
            rows = ops.embedding(x, places)
            return ops.gelu(ops.experts(rows, ops.linear(rows, router), 3, layer))

        return run

    check(make, [5, 17], bound=1e-5)


def test_indices_of_ones_own_are_not_on_the_tape(random: np.random.Generator) -> None:
    from embedsvc.inference.ops.native.tape import Tape

    with pytest.raises(NotOnTape):
        Tape().embedding(table(random, 3), np.zeros(2, np.int32))
