"""Qwen3: a causal decoder with shared keys, norms of queries and keys, and SwiGLU (Qwen team, 2025,
arXiv:2505.09388), as an embedding model (arXiv:2506.05176).

The pass is `decoder.py`'s: every layer sees all of the text that lies before it.
"""

from typing import Literal

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import decoder
from embedsvc.inference.models.configs import (
    Base,
    RopeParameters,
    refuse_other_ropes,
    refuse_unless,
)
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = decoder.UNUSED


class Config(decoder.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    hidden_act: Literal["silu"]
    rope_theta: Base
    rope_parameters: RopeParameters | None = None
    layer_types: tuple[Literal["full_attention"], ...] | None = None
    use_sliding_window: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unless(self, use_sliding_window=False)
        refuse_other_ropes(self.rope_parameters, "default")


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> decoder.Weights:
    """Weights on the device, from tensors under transformers' names."""
    theta = config.rope_parameters.rope_theta if config.rope_parameters else config.rope_theta
    view = decoder.View(rope_theta=theta, scale=config.head_dim**-0.5, causal=True)
    switches = decoder.Switches(views={"full_attention": view}, hidden_act=config.hidden_act)
    return decoder.prepare(ops, tensors, config, inputs, switches)


forward = decoder.forward
