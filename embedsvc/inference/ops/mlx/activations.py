"""Activations on MLX, each a function of an array of float32."""

from collections.abc import Callable
from typing import Literal

import mlx.core as mx

from embedsvc.inference.ops.activations import Name

FactorName = Literal["gelu", "gelu_tanh", "quick_gelu", "silu"]


def _phi(x: mx.array) -> mx.array:
    return 0.5 * (1 + mx.erf(x * 0.7071067811865476))


def _gelu_tanh(x: mx.array) -> mx.array:
    # (1 + tanh(u)) / 2 is sigmoid(2 u).
    return mx.sigmoid(x * (1.5957691216 + 0.0713548162726 * mx.square(x)))


def _quick_gelu(x: mx.array) -> mx.array:
    return mx.sigmoid(1.702 * x)


FACTORS: dict[FactorName, Callable[[mx.array], mx.array]] = {
    "gelu": _phi,
    "gelu_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "silu": mx.sigmoid,
}
"""What these multiply x with. One kernel can multiply that with a second array, too."""


def _mish(x: mx.array) -> mx.array:
    # tanh(log(1 + e)) is e (e + 2) / (e (e + 2) + 2).
    power = mx.exp(mx.minimum(x, 20))
    product = power * (power + 2)
    return x * (product / (product + 2))


def _leaky_relu(x: mx.array, slope: float = 0.01) -> mx.array:
    return mx.where(x < 0, slope * x, x)


def _relu(x: mx.array) -> mx.array:
    return x * (x > 0)  # makes NaN of -inf, where the maximum of it and 0 would hide it


def _xielu(x: mx.array, above: float, below: float, start: float, nearest: float) -> mx.array:
    low = (mx.expm1(mx.minimum(x, nearest)) - x) * below
    return mx.where(x > 0, above * x * x, low) + start * x


def _gelu_10(x: mx.array) -> mx.array:
    return mx.clip(x * _phi(x), -10, 10)


def _hardswish(x: mx.array) -> mx.array:
    return x * (mx.clip(x + 3, 0, 6) / 6)


def _laplace(x: mx.array) -> mx.array:
    return _phi((x - 0.707107) / 0.282095)


def _linear(x: mx.array) -> mx.array:
    return x


def _log1p_relu(x: mx.array) -> mx.array:
    return mx.log1p(_relu(x))


def _relu2(x: mx.array) -> mx.array:
    return mx.square(_relu(x))


def _relu6(x: mx.array) -> mx.array:
    return mx.clip(x, 0, 6)


def _sqrtsoftplus(x: mx.array) -> mx.array:
    return mx.sqrt(mx.logaddexp(x, 0))


FUNCTIONS: dict[Name, Callable[..., mx.array]] = {
    "gelu_10": _gelu_10,
    "hardswish": _hardswish,
    "laplace": _laplace,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "log1p_relu": _log1p_relu,
    "mish": _mish,
    "prelu": _leaky_relu,
    "relu": _relu,
    "relu2": _relu2,
    "relu6": _relu6,
    "sigmoid": mx.sigmoid,
    "sqrtsoftplus": _sqrtsoftplus,
    "tanh": mx.tanh,
    "xielu": _xielu,
}
"""The others, with what was learned for them behind x."""
