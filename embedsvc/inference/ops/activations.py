"""Activations: functions of single numbers, which stand between the layers of an MLP.

Each backend has all of them, under these names. What checkpoints call them is in
`inference/models/activations.py`.
"""

from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "gelu",  # x * Phi(x), where Phi is the distribution function of a normal variable
    "gelu_10",  # the same, within -10 and 10
    "gelu_tanh",  # GELU by its tanh formula
    "hardswish",  # x * relu6(x + 3) / 6
    "laplace",  # Phi((x - 0.707107) / 0.282095)
    "leaky_relu",  # x, and x / 100 below 0
    "linear",  # x
    "log1p_relu",  # log(1 + x), and 0 below 0
    "mish",  # x * tanh(softplus(x))
    "prelu",  # x, and x times `numbers[0]` below 0
    "quick_gelu",  # x * sigmoid(1.702 x)
    "relu",  # x, and 0 below 0
    "relu2",  # the square of relu
    "relu6",  # x, within 0 and 6
    "sigmoid",  # 1 / (1 + exp(-x))
    "silu",  # x * sigmoid(x)
    "sqrtsoftplus",  # the square root of softplus(x), which is log(1 + exp(x))
    "tanh",
    "xielu",  # see `Activation.numbers`
]


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation, and what was learned for it."""

    name: Name
    numbers: tuple[float, ...] = ()
    """Of PReLU the slope below 0. Of xIELU (Huang et al., 2024, arXiv:2411.13010) p, n, b and e:
    it is p x^2 + b x above 0, and n (exp(min(x, e)) - 1 - x) + b x elsewhere."""
