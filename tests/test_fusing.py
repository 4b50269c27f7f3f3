"""What MLX makes one kernel of: that it is one, and that its results are those of several."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.inference.ops.base import columns, rope_table
from embedsvc.inference.ops.mlx import MlxOps
from embedsvc.inference.ops.mlx.activations import FACTORS
from embedsvc.inference.ops.mlx.fusing import Fused, LastStep
from embedsvc.inference.ops.mlx.rope import TurnCache
from tests.support.tolerance import within

LEARNED = {"prelu": (0.25,), "xielu": (0.8, 0.8, 0.5, -1e-6)}
VIEWS = {"Slice", "Reshape", "Unflatten", "ExpandDims", "Squeeze", "Transpose"}


def kernels(value: mx.array, folder: Path) -> list[str]:
    """The names of the primitives that give it, of those that compute."""
    mx.export_to_dot(str(folder / "graph.dot"), value)
    names = re.findall(r'label ="(\w+)"', (folder / "graph.dot").read_text(encoding="utf-8"))
    return [name for name in names if name not in VIEWS]


def cases(dtype: mx.Dtype) -> dict[str, tuple[Callable[[Fused], Any], tuple[mx.array, ...]]]:
    random = np.random.default_rng(3)
    x = mx.array(random.normal(size=(6, 32)) * 3).astype(dtype)
    gate, up = columns(x, 16, 16)
    cache = TurnCache()
    turns = cache.take(mx.array(rope_table(8, 100.0, 9)), mx.array([0, 1, 2, 8, 0, 1]))
    operands = cache.operands(columns(x, 24, 8)[0], turns)
    mx.eval(x, *operands)
    found: dict[str, Any] = {"turn": (lambda fused: fused.turn, operands)}
    for name in FACTORS:
        found[name] = (lambda fused, name=name: fused.factors[name][0], (x,))
        found[f"{name}, gated"] = (lambda fused, name=name: fused.factors[name][1], (gate, up))
    return found


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_each_function_is_one_kernel(tmp_path: Path, dtype: mx.Dtype) -> None:
    for name, (choose, inputs) in cases(dtype).items():
        found = kernels(choose(Fused(compiled=True))(*inputs), tmp_path)
        assert [each[:8] for each in found] == ["Compiled"], name


def test_a_kernel_that_reads_halves_in_the_other_order_gives_the_same() -> None:
    """It is the only one whose inputs lie in memory in no usual way. The others take seconds too,
    since on a CPU MLX has a C++ compiler make each."""
    choose, inputs = cases(mx.float32)["turn"]
    one, other = (choose(Fused(compiled=compiled))(*inputs) for compiled in (True, False))
    assert np.abs(np.array(one) - np.array(other)).max() <= 1e-6


def test_half_precision_is_rounded_once(random: np.random.Generator) -> None:
    x = mx.array(random.normal(size=4096) * 2).astype(mx.bfloat16)
    fused = Fused(compiled=False)
    functions = {name: alone for name, (alone, _) in fused.factors.items()} | fused.activations
    for name, function in functions.items():
        exact = function(x.astype(mx.float32), *LEARNED.get(name, ()))
        assert mx.array_equal(function(x, *LEARNED.get(name, ())), exact.astype(mx.bfloat16)), name


def test_a_residual_and_a_gate_become_part_of_the_step_before(
    tmp_path: Path, random: np.random.Generator
) -> None:
    ops = MlxOps("float32")
    layer = ops.linear_layer(random.normal(size=(8, 8)), None)
    x, y = (ops.array(random.normal(size=(3, 8))) for _ in range(2))
    for found in (ops.add(ops.linear(x, layer), y), ops.add(y, ops.linear(x, layer))):
        assert kernels(found, tmp_path) == ["AddMM"]
        expected = np.array(x) @ np.array(layer.weight).T + np.array(y)
        assert np.abs(ops.to_numpy(found) - expected).max() <= within(1e-5)
    ops._fused = Fused(compiled=True)
    (fused,) = kernels(ops.multiply(ops.gelu(x), y), tmp_path)
    assert fused.startswith("Compiled")


def test_only_the_last_step_is_joined_and_only_by_what_it_goes_with() -> None:
    last, (x, y) = LastStep(), (mx.zeros(1), mx.zeros(1))
    assert last.join("add", x, y) is None
    last.note(x, "add", lambda other: other + 5)
    assert last.join("multiply", x, y) is None
    assert last.join("add", y, y) is None
    for joined in (last.join("add", x, y), last.join("add", y, x)):
        assert joined is not None
        assert joined.item() == 5
    last.note(y, "multiply", lambda other: other)
    assert last.join("add", x, x) is None
    last.clear()
    assert last.join("multiply", y, x) is None


def test_a_product_with_a_bias_is_added_to_as_it_is(random: np.random.Generator) -> None:
    ops = MlxOps("float32")
    layer = ops.linear_layer(random.normal(size=(8, 8)), np.ones(8))
    x = ops.array(random.normal(size=(3, 8)))
    expected = np.array(x) @ np.array(layer.weight).T + 1 + np.array(x)
    found = ops.add(ops.linear(x, layer), x)
    assert np.abs(ops.to_numpy(found) - expected).max() <= within(1e-5)


def test_turns_are_looked_up_once_a_pass() -> None:
    cache, table, other = TurnCache(), mx.zeros((9, 4)), mx.ones((9, 4))
    positions = mx.array([0, 1])
    turns = cache.take(table, positions)
    assert cache.take(other, positions) is not turns
    assert cache.take(table, positions) is turns
    assert cache.take(table, mx.array([0, 1])) is not turns


def test_nothing_of_a_pass_is_kept_when_it_has_begun(random: np.random.Generator) -> None:
    ops = MlxOps("float32")
    batch = ops.batch([np.zeros(3, np.int32)])
    layer = ops.linear_layer(random.normal(size=(8, 8)), None)
    x = ops.rope(mx.zeros((16, 8)), ops.float32(rope_table(4, 9.0, 16)), batch.positions)
    ops.begin(ops.linear(x, layer))
    assert ops._last._step is None
    assert ops._turns._turns == {}
