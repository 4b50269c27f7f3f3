"""Activations on NumPy, in place: x (N, D) is overwritten and returned.

They are made of several simple operations each, so they go over a few rows at a time, which stay in
the cache from one operation to the next.
"""

import numpy as np

from embedsvc.inference.ops.base import Floats

FEW_ROWS = 32
"""Rows at a time; rows of 1536 floats are typical."""

GELU = tuple(
    np.float32(coefficient)
    for coefficient in (
        1.8139253429337756e-09,
        -1.3378311245083756e-07,
        3.974069347832e-06,
        -5.5273376281994154e-05,
        -3.3026736849883246e-05,
        0.03633414916652728,
        0.7978842683911042,
    )
)
"""P fitted to atanh(erf(x / sqrt 2)) / x, so that `_times_gate` is x * Phi(x) to within 7e-8."""
GELU_TANH = (np.float32(0.7978845608 * 0.044715), np.float32(0.7978845608))


def gelu(x: Floats) -> Floats:
    """The exact GELU. NumPy's tanh is vectorised where its erf is not."""
    return _times_gate(x, GELU)


def gelu_tanh(x: Floats) -> Floats:
    """GELU by its tanh formula."""
    return _times_gate(x, GELU_TANH)


def silu(x: Floats) -> Floats:
    """x * sigmoid(x)."""
    scratch = np.empty((min(len(x), FEW_ROWS), *x.shape[1:]), dtype=np.float32)
    for start in range(0, len(x), FEW_ROWS):
        part = x[start : start + FEW_ROWS]
        divisor = scratch[: len(part)]
        np.negative(part, out=divisor)
        with np.errstate(over="ignore"):  # exp of a very large -x is infinity, and x / that is 0
            np.exp(divisor, out=divisor)
        divisor += np.float32(1)
        part /= divisor
    return x


def _times_gate(x: Floats, coefficients: tuple[np.float32, ...]) -> Floats:
    """x * (1 + tanh(x P(x^2))) / 2, where P has these coefficients, the highest power first."""
    scratch = np.empty((2, min(len(x), FEW_ROWS), *x.shape[1:]), dtype=np.float32)
    for start in range(0, len(x), FEW_ROWS):
        part = x[start : start + FEW_ROWS]
        square, slope = scratch[:, : len(part)]
        with np.errstate(over="ignore"):  # a huge |x| gives infinity, whose tanh is right
            np.multiply(part, part, out=square)
            np.multiply(square, coefficients[0], out=slope)
            for coefficient in coefficients[1:-1]:
                slope += coefficient
                slope *= square
            slope += coefficients[-1]
            slope *= part
        np.tanh(slope, out=slope)
        slope += np.float32(1)
        slope *= np.float32(0.5)
        part *= slope
    return x
