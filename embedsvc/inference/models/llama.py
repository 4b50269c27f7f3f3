"""Llama (Touvron et al., 2023, arXiv:2302.13971) and the models built like it: Mistral, Qwen2,
Qwen3, and EuroBERT, which sees a text from both ends.

What differs is said by `model_type` and config.json; the pass is `decoder.py`'s. Models of vectors
are made of them as they are (Qwen3-Embedding, e5-mistral) or with each token seeing all others
(gte-Qwen2, llama-nemotron, pplx-embed, voyage-4-nano).
"""

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import decoder
from embedsvc.inference.models.activations import HiddenAct
from embedsvc.inference.models.configs import Base, LayerType, Rows, refuse_unless
from embedsvc.inference.models.rope import Rope, RopePlan, plan_rope
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = decoder.UNUSED
QWEN3 = ("bidirectional_pplx_qwen3", "qwen3")
"""Values of `model_type` of models that norm each head of queries and keys."""
LLAMA = ("eurobert", "llama", "llama_bidirec")
"""Values of models that heed `attention_bias` and `mlp_bias`; Qwen3 heeds the first."""
MISTRAL = ("ministral3", "mistral")
"""Values of models whose layers all see a window, if the file says how wide it is."""


class Config(decoder.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    hidden_act: HiddenAct
    rope_theta: Base
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    original_max_position_embeddings: Rows | None = None
    partial_rotary_factor: float | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: Rows | None = None
    use_sliding_window: bool = False
    max_window_layers: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.partial_rotary_factor is not None:
            refuse_unless(self, partial_rotary_factor=1.0)
        self.rope.check("default", "dynamic", "linear", "llama3", "yarn")
        if self.window is None and "sliding_attention" in self.kinds():
            raise ValueError("`layer_types` has windows, and nothing says how wide they are")

    @property
    def longest(self) -> int:
        """The most tokens of a text that there are positions for."""
        return min(self.max_position_embeddings, self.rope.longest)

    @property
    def rope(self) -> RopePlan:
        """How positions turn."""
        stated = self.rope_scaling, self.rope_parameters
        trained = self.original_max_position_embeddings
        return plan_rope(self.rope_theta, self.max_position_embeddings, *stated, trained=trained)

    @property
    def window(self) -> int | None:
        """How many tokens away layers with windows see: the token itself counts where attention is
        causal. None: all tokens."""
        windows = self.model_type in MISTRAL or self.use_sliding_window
        if self.sliding_window is None or not windows:
            return None
        return self.sliding_window - self.causal

    def kinds(self) -> tuple[LayerType, ...]:
        """The kind of attention of each layer."""
        if self.model_type in MISTRAL:
            kind: LayerType = "full_attention" if self.window is None else "sliding_attention"
            return (kind,) * self.num_hidden_layers
        if self.layer_types is not None or self.window is None:
            return super().kinds()
        return tuple(
            "sliding_attention" if i >= self.max_window_layers else "full_attention"
            for i in range(self.num_hidden_layers)
        )


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> decoder.Weights:
    """Weights on the device, from tensors under transformers' names."""

    def view(kind: LayerType) -> decoder.View:
        return decoder.View(
            rope=config.rope,
            scale=config.head_size**-0.5,
            causal=config.causal,
            window=config.window if kind == "sliding_attention" else None,
        )

    biased = config.attention_bias and config.model_type in (*LLAMA, *QWEN3)
    switches = decoder.Switches(
        views={kind: view(kind) for kind in config.kinds()},
        hidden_act=config.hidden_act,
        norms_of_heads=config.model_type in QWEN3,
        qkv_bias=biased or config.model_type == "qwen2",
        out_bias=biased,
        mlp_bias=config.mlp_bias and config.model_type in LLAMA,
    )
    return decoder.prepare(ops, tensors, config, inputs, switches)


forward = decoder.forward
