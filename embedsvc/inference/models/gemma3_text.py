"""Gemma 3: norms before and after each block, shared keys, GEGLU, and attention to a window of the
text in most layers (Gemma team, 2025, arXiv:2503.19786).

EmbeddingGemma is this architecture without causal masks (arXiv:2509.20354), harrier-oss-v1-270m and
KaLM-Embedding-Gemma3 with them. The pass is `decoder.py`'s.
"""

import msgspec

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import decoder
from embedsvc.inference.models.activations import HiddenAct
from embedsvc.inference.models.configs import (
    Base,
    Factor,
    Layers,
    LayerType,
    Rows,
    refuse_unless,
)
from embedsvc.inference.models.rope import Rope, RopePlan, plan_rope
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = decoder.UNUSED


class RopeByLayer(msgspec.Struct, frozen=True):
    """Rotary positions for each kind of layer."""

    full_attention: Rope | None = None
    sliding_attention: Rope | None = None


class Config(decoder.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    query_pre_attn_scalar: Factor
    sliding_window: Rows
    hidden_activation: HiddenAct
    sliding_window_pattern: Layers = 6
    rope_parameters: RopeByLayer | None = None
    rope_scaling: Rope | None = None
    rope_theta: Base = 1_000_000.0
    rope_local_base_freq: Base = 10_000.0
    attention_bias: bool = False
    attn_logit_softcapping: None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unless(self, attention_bias=False)
        for kind in set(self.kinds()):
            self.rope(kind).check("default", "dynamic", "linear", "llama3", "yarn")

    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer."""
        return self.layer_types or tuple(
            "full_attention" if i % self.sliding_window_pattern == 0 else "sliding_attention"
            for i in range(1, self.num_hidden_layers + 1)
        )

    def rope(self, kind: LayerType) -> RopePlan:
        """How the positions of a kind of layer turn. `rope_scaling` is of those that see all."""
        positions = self.max_position_embeddings
        by_layer = self.rope_parameters or RopeByLayer()
        if kind == "full_attention":
            return plan_rope(self.rope_theta, positions, self.rope_scaling, by_layer.full_attention)
        return plan_rope(self.rope_local_base_freq, positions, by_layer.sliding_attention)

    def window(self, kind: LayerType) -> int | None:
        """How many tokens away a kind of layer sees: half of the window in each direction, or,
        where attention is causal, all of it back. None: all tokens."""
        if kind == "full_attention":
            return None
        if self.use_bidirectional_attention:
            return self.sliding_window // 2
        return self.sliding_window - self.causal


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> decoder.Weights:
    """Weights on the device, from tensors under transformers' names."""

    def view(kind: LayerType) -> decoder.View:
        return decoder.View(
            rope=config.rope(kind),
            scale=config.query_pre_attn_scalar**-0.5,
            causal=config.causal,
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
