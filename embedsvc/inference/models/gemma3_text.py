"""Gemma 3: norms before and after each block, shared keys, GEGLU, and attention to a window of the
text in most layers (Gemma team, 2025, arXiv:2503.19786).

EmbeddingGemma is this architecture without causal masks (arXiv:2509.20354). The pass is
`decoder.py`'s.
"""

from typing import Literal

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import decoder
from embedsvc.inference.models.configs import (
    Base,
    Factor,
    Layers,
    LayerType,
    RopeByLayer,
    Rows,
    refuse_other_ropes,
)
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = decoder.UNUSED


class Config(decoder.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    query_pre_attn_scalar: Factor
    sliding_window: Rows
    hidden_activation: Literal["gelu_pytorch_tanh"]
    use_bidirectional_attention: bool = False
    sliding_window_pattern: Layers = 6
    rope_parameters: RopeByLayer | None = None
    rope_theta: Base = 1_000_000.0
    rope_local_base_freq: Base = 10_000.0
    attn_logit_softcapping: None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_other_ropes(self.rope_parameters, "default")

    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer."""
        return self.layer_types or tuple(
            "full_attention" if i % self.sliding_window_pattern == 0 else "sliding_attention"
            for i in range(1, self.num_hidden_layers + 1)
        )

    def theta(self, kind: LayerType) -> float:
        """The base of the rotary positions of a kind of layer."""
        if self.rope_parameters is not None:
            return self.rope_parameters.of(kind).rope_theta
        return self.rope_theta if kind == "full_attention" else self.rope_local_base_freq

    def window(self, kind: LayerType) -> int | None:
        """How many tokens away a kind of layer sees: half of the window in each direction, or,
        where attention is causal, all of it back. None: all tokens."""
        if kind == "full_attention":
            return None
        half = self.sliding_window // 2
        return half if self.use_bidirectional_attention else self.sliding_window - 1


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> decoder.Weights:
    """Weights on the device, from tensors under transformers' names."""

    def view(kind: LayerType) -> decoder.View:
        return decoder.View(
            rope_theta=config.theta(kind),
            scale=config.query_pre_attn_scalar**-0.5,
            causal=not config.use_bidirectional_attention,
            window=config.window(kind),
        )

    switches = decoder.Switches(
        views={kind: view(kind) for kind in config.kinds()},
        hidden_act=config.hidden_activation,
        norms_after_blocks=True,
        norms_add_one=True,
        scale_embeddings=True,
    )
    return decoder.prepare(ops, tensors, config, inputs, switches)


forward = decoder.forward
