"""What is done to pooled vectors, in the order in which a checkpoint lists it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Activation = Literal[
    "GELU",
    "Hardswish",
    "Identity",
    "LeakyReLU",
    "Mish",
    "ReLU",
    "ReLU6",
    "Sigmoid",
    "SiLU",
    "Tanh",
]
"""Names of torch.nn's classes."""


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer on vectors."""

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: Activation
    residual: bool
    name: str = "linear"
    """What the names of its tensors begin with."""
    scores: bool = False
    """Whether what it gives are scores, so that it is the last."""
    own_folder: bool = True
    """Whether its weights are in a folder of its own, and not among those of the model."""


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """A layer norm of vectors; its weights are in a folder of its own."""

    folder: Path
    size: int


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scales vectors to length 1."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Cuts vectors to their first dimensions, which leaves them shorter than 1."""

    size: int


@dataclass(frozen=True, slots=True)
class RoundTanh:
    """Rounds 127 tanh(x), which makes vectors of whole numbers that fit into int8."""


Step = Dense | LayerNorm | Normalize | RoundTanh | Truncate
