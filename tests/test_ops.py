"""Each operation on each backend against plain float64 NumPy; for attention see test_attention."""

import math
from typing import Any, get_args

import numpy as np
import pytest

from embedsvc.catalog.cards import Pooling
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import Norm, Ops, columns, rope_table
from embedsvc.inference.ops.numpy import ROWS
from tests.support.attention import unpadded
from tests.support.tolerance import within


def close(ops: Ops, value: object, expected: np.ndarray, bound: float = 2e-6) -> None:
    found = ops.to_numpy(value)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (within(bound, ops) if bound else 0)


def test_gelu_is_the_exact_one(ops: Ops) -> None:
    x = np.linspace(-30, 30, 60_001, dtype=np.float32)
    expected = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    close(ops, ops.gelu(ops.array(x.copy())), expected, bound=1e-6)


def test_gelu_of_huge_values_is_finite(ops: Ops) -> None:
    x = np.array([-1e30, -1e4, 0.0, 1e4, 1e30], dtype=np.float32)
    assert ops.to_numpy(ops.gelu(ops.array(x.copy()))).tolist() == [0, 0, 0, *x[3:].tolist()]


def test_gelu_tanh_is_the_formula(ops: Ops) -> None:
    x = np.linspace(-30, 30, 60_001, dtype=np.float32)
    cubed = x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * cubed))
    close(ops, ops.gelu_tanh(ops.array(x.copy())), expected, bound=2e-6)


def test_silu(ops: Ops) -> None:
    x = np.array([-1e30, *np.linspace(-120, 120, 6001), 1e30], dtype=np.float32)[:, None]
    expected = x / (1 + np.exp(-np.maximum(x.astype(np.float64), -700)))
    found = ops.to_numpy(ops.silu(ops.array(x.copy())))
    assert np.abs(found - expected)[1:-1].max() <= within(1e-5, ops)
    assert found[[0, -1], 0].tolist() == [0, x[-1, 0]]


def test_tanh_is_exact_near_zero_and_far_away(ops: Ops) -> None:
    x = np.array([*np.linspace(-12, 12, 6001), 1e-8, -1e-4, 1e4, -1e30], dtype=np.float32)
    expected = np.tanh(x.astype(np.float64))
    found = ops.to_numpy(ops.activate(ops.array(x.copy()), Activation("tanh")))
    assert (np.abs(found - expected) <= 1e-6 * np.abs(expected) + 1e-12).all()


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu"])
def test_columns_of_a_product_can_be_worked_on_alone(
    ops: Ops, activation: str, random: np.random.Generator
) -> None:
    x = random.normal(size=(40, 6)).astype(np.float32)
    gate, up = columns(ops.array(x.copy()), 3, 3)
    expected = ops.to_numpy(getattr(ops, activation)(ops.array(x[:, :3].copy()))) * x[:, 3:]
    close(ops, ops.multiply(getattr(ops, activation)(gate), up), expected)


@pytest.mark.parametrize("shifted", [True, False])
def test_layer_norm(ops: Ops, shifted: bool, random: np.random.Generator) -> None:
    x = random.normal(3, 2, (5, 16))
    weight, bias = random.normal(size=(2, 16))
    norm = Norm(ops.array(weight), ops.array(bias) if shifted else None)
    deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    expected = (x - x.mean(axis=1, keepdims=True)) / deviation * weight + bias * shifted
    close(ops, ops.layer_norm(ops.array(x), norm, 1e-5), expected)


@pytest.mark.parametrize("size", [16, 4])
def test_rms_norm_of_rows_or_of_heads(ops: Ops, size: int, random: np.random.Generator) -> None:
    x = random.normal(1, 2, (5, 32))
    weight = random.normal(size=size)
    slices = x[:, :16].reshape(5, -1, size)
    expected = slices / np.sqrt((slices**2).mean(axis=-1, keepdims=True) + 1e-5) * weight
    found = ops.rms_norm(ops.array(x)[:, :16], ops.array(weight), 1e-5)
    close(ops, found, expected.reshape(5, 16))


def test_rope_turns_the_two_halves_of_a_head_by_its_position(
    ops: Ops, random: np.random.Generator
) -> None:
    size, heads = 8, 3
    x = random.normal(size=(6, size * heads))
    positions = np.array([0, 1, 2, 0, 5, 499], dtype=np.int32)
    turns = positions[:, None] * 10000.0 ** (-np.arange(4) / 4)
    pairs = x.reshape(6, heads, 2, 4)
    turned = (pairs[:, :, 0] + 1j * pairs[:, :, 1]) * np.exp(1j * turns)[:, None]
    expected = np.stack([turned.real, turned.imag], axis=2).reshape(6, -1)
    table = ops.float32(rope_table(size, 10000.0, 500))
    wide = ops.array(np.concatenate([x, x], axis=1))
    indices = ops.batch([positions]).ids[:6]
    close(ops, ops.rope(columns(wide, 24, 24)[0], table, indices), expected, bound=3e-5)


@pytest.mark.parametrize("chosen", [1, 2])
def test_experts_are_weighted_by_the_router(
    ops: Ops, chosen: int, random: np.random.Generator
) -> None:
    x, scores = random.normal(size=(9, 4)), random.normal(size=(9, 3))
    up, down = random.normal(size=(3, 5, 4)), random.normal(size=(3, 4, 5))
    expected = np.zeros((9, 4))
    for row in range(9):
        weights = np.exp(scores[row]) / np.exp(scores[row]).sum()
        for expert in np.argsort(-scores[row])[:chosen]:
            inner = up[expert] @ x[row]
            inner *= [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in inner]
            expected[row] += weights[expert] * (down[expert] @ inner)
    layer = ops.experts_layer(up, down)
    close(ops, ops.experts(ops.array(x), ops.array(scores), chosen, layer), expected, bound=1e-5)


@pytest.mark.parametrize("biased", [True, False])
def test_linear(ops: Ops, biased: bool, random: np.random.Generator) -> None:
    x, weight, bias = random.normal(size=(7, 16)), random.normal(size=(5, 16)), np.arange(5.0)
    layer = ops.linear_layer(weight, bias if biased else None)
    expected = x @ weight.T + (bias if biased else 0)
    close(ops, ops.linear(ops.array(x), layer), expected, bound=1e-5)


def test_rows_gives_every_row_to_the_function_once(ops: Ops) -> None:
    count = 3 * ROWS + 1
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    found = ops.rows(ops.add, ops.array(x.copy()), ops.array(x))
    close(ops, found, 2.0 * x, bound=0)


def test_rows_gives_back_as_many_arrays_as_the_function(ops: Ops) -> None:
    x = np.arange(4.0 * (2 * ROWS + 3), dtype=np.float32).reshape(-1, 4)
    first, second = ops.rows(lambda x: columns(x, 3, 1), ops.array(x))
    close(ops, first, x[:, :3], bound=0)
    close(ops, second, x[:, 3:], bound=0)


def test_a_copy_is_safe_from_being_overwritten(ops: Ops) -> None:
    x = ops.array(np.ones((3, 4)))
    ops.silu(ops.copy(x))
    close(ops, x, np.ones((3, 4)), bound=0)


@pytest.mark.parametrize("lengths", [[1], [5], [3, 3, 3], [2, 5, 5, 17], [16, 16], [1, 40]])
def test_pooling_stays_within_a_text(
    ops: Ops, lengths: list[int], random: np.random.Generator
) -> None:
    batch = ops.batch([np.arange(n, dtype=np.int32) for n in lengths])
    hidden = random.normal(size=(ops.to_numpy(batch.ids).shape[0], 6)).astype(np.float32)
    texts = np.split(unpadded(ops, ops.array(hidden), batch), np.cumsum(lengths)[:-1])
    weights = [np.arange(1, n + 1)[:, None] for n in lengths]
    expected: dict[Pooling, list[Any]] = {
        "mean": [text.mean(axis=0) for text in texts],
        "max": [text.max(axis=0) for text in texts],
        "cls": [text[0] for text in texts],
        "last_token": [text[-1] for text in texts],
        "mean_sqrt_len": [text.sum(axis=0) / len(text) ** 0.5 for text in texts],
        "weighted_mean": [
            (text * w).sum(axis=0) / w.sum() for text, w in zip(texts, weights, strict=True)
        ],
    }
    assert set(expected) == set(get_args(Pooling))
    for pooling, rows in expected.items():
        found = ops.pool(ops.array(hidden), batch.layout, [pooling])
        close(ops, found[: len(lengths)], np.stack(rows))
    both = ops.pool(ops.array(hidden), batch.layout, ["last_token", "max"])
    side_by_side = np.hstack([expected["last_token"], expected["max"]])
    close(ops, both[: len(lengths)], side_by_side)


def test_padding_is_at_a_position_that_every_model_has(ops: Ops) -> None:
    batch = ops.batch([np.array([7] * 17, np.int32), np.array([9], np.int32)])
    positions = ops.to_numpy(batch.positions)
    assert positions.max() == 16
    assert positions.sum() == 16 * 17 / 2


def test_positions_begin_anew_with_every_text(ops: Ops) -> None:
    batch = ops.batch([np.array([7, 8], np.int32), np.array([9, 9, 9], np.int32)])
    positions = unpadded(ops, batch.positions[:, None], batch)
    assert positions[:, 0].tolist() == [0, 1, 0, 1, 2]
