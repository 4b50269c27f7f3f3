"""Floats of 4 and 8 bits: their values are MLX's, and values are rounded to the nearest of them."""

import mlx.core as mx
import numpy as np
import pytest

from embedsvc.checkpoints.float_codes import E2M1, E4M3, E8M0, nearest, next_power

CODES = np.arange(256, dtype=np.uint8)


def expanded(packed: np.ndarray, scales: np.ndarray, mode: str) -> np.ndarray:
    return np.array(mx.dequantize(mx.array(packed), mx.array(scales), mode=mode, dtype=mx.float32))


def test_the_values_of_all_codes_are_those_of_mlx() -> None:
    ones = np.full((1, 8), 127, np.uint8)
    values = expanded(CODES.view(np.uint32).reshape(1, 64), ones, "mxfp8")
    assert np.array_equal(values[0], E4M3, equal_nan=True)
    words = np.array([[0x76543210, 0xFEDCBA98] * 2], np.uint32)
    assert np.array_equal(expanded(words, ones[:, :1], "mxfp4")[0, :16], E2M1)
    threes = np.full((256, 4), 0x22222222, np.uint32)  # the code of 1
    assert np.array_equal(expanded(threes, CODES[:, None], "mxfp4")[:, 0], E8M0)
    scales = expanded(threes[:, :2], CODES[:, None], "nvfp4")[:, 0]
    assert np.array_equal(scales, E4M3, equal_nan=True)


@pytest.mark.parametrize("table", [E2M1, E4M3])
def test_values_are_rounded_to_the_nearest_code(
    table: np.ndarray, random: np.random.Generator
) -> None:
    finite = np.isfinite(table)
    codes = np.arange(len(table))[finite]
    assert np.array_equal(nearest(table[finite], table), codes)
    values = (random.normal(size=1000) * table[finite].max() / 2).astype(np.float32)
    distances = np.abs(values[:, None] - table[finite])
    assert np.array_equal(np.abs(values - table[nearest(values, table)]), distances.min(axis=1))
    positive = table[finite][table[finite] > 0]
    middles = (positive[1:] + positive[:-1]) / 2
    assert not (nearest(middles, table) % 2).any()
    assert table[nearest(np.array([1e9], np.float32), table)] == table[finite].max()


def test_a_scale_is_never_below_its_value(random: np.random.Generator) -> None:
    values = np.exp(random.normal(size=1000) * 20).astype(np.float32)
    powers = E8M0[next_power(values)]
    assert (powers >= values).all()
    assert (powers / 2 < values).all()
