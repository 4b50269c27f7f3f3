"""Activations on NumPy, in place: x (N, D) is overwritten and returned.

They are made of several simple operations each, so they go over a few rows at a time, which stay in
the cache from one operation to the next.
"""

from collections.abc import Callable

import numpy as np

from embedsvc.inference.ops.activations import Activation, Name
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
LAPLACE = 0.707107, 0.282095
"""Mean and deviation."""


def activate(x: Floats, activation: Activation) -> Floats:
    """Any activation."""
    frequent = FREQUENT.get(activation.name)
    if frequent is not None:
        return frequent(x)
    function = FUNCTIONS[activation.name]
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(x), FEW_ROWS):
            part = x[start : start + FEW_ROWS]
            part[...] = function(part, *activation.numbers)
    return x


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


def _tanh(x: Floats) -> Floats:
    return np.tanh(x, out=x)


def _relu(x: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        x *= x > 0  # makes NaN of -inf, where the maximum of it and 0 would hide it
    return x


FREQUENT: dict[Name, Callable[[Floats], Floats]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "linear": lambda x: x,
    "relu": _relu,
    "silu": silu,
    "tanh": _tanh,
}
"""In place, and in as little memory as there can be."""


def _leaky_relu(x: Floats, slope: float = 0.01) -> Floats:
    return np.where(x < 0, np.float32(slope) * x, x)


def _laplace(x: Floats) -> Floats:
    mean, deviation = LAPLACE
    away = np.clip((x - np.float32(mean)) / np.float32(deviation), -6, 6)
    return np.float32(0.5) * (np.float32(1) + np.tanh(away * np.polyval(GELU, away * away)))


def _mish(x: Floats) -> Floats:
    # tanh(log(1 + e)) is e (e + 2) / (e (e + 2) + 2).
    power = np.exp(np.minimum(x, np.float32(20)))
    product = power * (power + np.float32(2))
    return x * np.divide(product, product + np.float32(2))


def _sigmoid(x: Floats) -> Floats:
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))


def _xielu(x: Floats, above: float, below: float, start: float, nearest: float) -> Floats:
    p, n, b, e = (np.float32(number) for number in (above, below, start, nearest))
    return np.where(x > 0, p * x * x, (np.expm1(np.minimum(x, e)) - x) * n) + b * x


def _gelu_10(x: Floats) -> Floats:
    return np.clip(gelu(x), -10, 10)


def _hardswish(x: Floats) -> Floats:
    return x * np.divide(np.clip(x + np.float32(3), 0, 6), np.float32(6))


def _quick_gelu(x: Floats) -> Floats:
    return x * _sigmoid(np.float32(1.702) * x)


def _log1p_relu(x: Floats) -> Floats:
    return np.log1p(_relu(x))


def _relu2(x: Floats) -> Floats:
    return np.square(_relu(x))


def _relu6(x: Floats) -> Floats:
    return np.clip(x, 0, 6)


def _sqrtsoftplus(x: Floats) -> Floats:
    return np.sqrt(np.logaddexp(np.float32(0), x))


FUNCTIONS: dict[Name, Callable[..., Floats]] = {
    "gelu_10": _gelu_10,
    "hardswish": _hardswish,
    "laplace": _laplace,
    "log1p_relu": _log1p_relu,
    "leaky_relu": _leaky_relu,
    "mish": _mish,
    "prelu": _leaky_relu,
    "quick_gelu": _quick_gelu,
    "relu2": _relu2,
    "relu6": _relu6,
    "sigmoid": _sigmoid,
    "sqrtsoftplus": _sqrtsoftplus,
    "xielu": _xielu,
}
"""The others, of a few rows."""


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
