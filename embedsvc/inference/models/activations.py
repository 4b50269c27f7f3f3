"""Activations by the names that config.json has for them, which are those of transformers'
`ACT2FN`."""

from typing import Literal

import numpy as np

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.ops.activations import Activation, Name

HiddenAct = Literal[
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "hardswish",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "prelu",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "sigmoid",
    "silu",
    "sqrtsoftplus",
    "swish",
    "tanh",
    "xielu",
]
"""What `hidden_act` and the like of it may say."""

NAMES: dict[HiddenAct, Name] = {
    "gelu": "gelu",
    "gelu_10": "gelu_10",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "hardswish": "hardswish",
    "laplace": "laplace",
    "leaky_relu": "leaky_relu",
    "linear": "linear",
    "mish": "mish",
    "prelu": "prelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "sqrtsoftplus": "sqrtsoftplus",
    "swish": "silu",
    "tanh": "tanh",
    "xielu": "xielu",
}
"""What they are called here."""


def read_activation(tensors: Tensors, name: HiddenAct, holder: str) -> Activation:
    """The activation that a config.json asks for by that name.

    What two of them have learned is read from the checkpoint's tensors below `holder`
    ("encoder.layer.0.intermediate.intermediate_act_fn"). Raises `CheckpointError`.
    """
    if name == "prelu":
        return Activation("prelu", (float(tensors.take(f"{holder}.weight", 1)[0]),))
    if name == "xielu":
        above, below = (_softplus(tensors, f"{holder}.alpha_{side}") for side in "pn")
        start, nearest = (float(tensors.take(f"{holder}.{part}")) for part in ("beta", "eps"))
        return Activation("xielu", (above, start + below, start, nearest))
    return Activation(NAMES[name])


def _softplus(tensors: Tensors, name: str) -> float:
    return float(np.logaddexp(0.0, np.float64(tensors.take(name, 1)[0])))
