"""Nomic BERT: rotary positions, SwiGLU, layer norm after each residual (Nussbaum et al., 2024,
arXiv:2402.01613), and in v2 a mixture of experts in every other layer (arXiv:2502.07972).

nomic-embed-text v1, v1.5 and v2-moe, and arctic-embed-m-long, are this architecture.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from embedsvc.bounds import LAYERS
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import (
    Base,
    Eps,
    RopeParameters,
    Rows,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_other_ropes,
    refuse_remainder,
    refuse_unless,
)
from embedsvc.inference.models.last_layer import read_rows, with_reads
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.activations import Activation
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Experts,
    Inputs,
    Linear,
    Norm,
    Ops,
    Read,
    columns,
    rope_table,
)

UNUSED = ("pooler.", "cls.")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.", ".experts.")
"""Parts of the names of tensors that are held as floats, also where they are quantised."""
GATES: dict[str, HiddenAct] = {"geglu": "gelu", "glu": "sigmoid", "swiglu": "silu"}
"""What gates are activated by, by `activation_function`."""
COUNT = Annotated[int, Meta(ge=0, le=LAYERS)]
POSITIONS = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    layer_norm_eps: Eps
    type_vocab_size: POSITIONS
    pad_vocab_size_multiple: Size = 1
    max_position_embeddings: POSITIONS = 0
    n_positions: POSITIONS = 0
    max_trained_positions: Rows = 2048
    head_dim: int | None = None
    rope_theta: Base
    rope_parameters: RopeParameters | None = None
    hidden_act: HiddenAct = "silu"
    """That of the gate, where there is no `activation_function`."""
    activation_function: Literal["geglu", "gelu", "glu", "swiglu"] | None = None
    qkv_proj_bias: bool = False
    mlp_fc1_bias: bool = False
    mlp_fc2_bias: bool = False
    num_experts: COUNT = 0
    moe_top_k: COUNT = 0
    moe_every_n_layers: COUNT = 0
    causal: bool = False
    prenorm: bool = False
    parallel_block: bool = False
    use_rms_norm: bool = False
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    rotary_emb_fraction: float = 1.0
    rotary_emb_interleaved: bool = False
    rotary_emb_scale_base: float | None = None
    rotary_scaling_factor: float | None = None
    expert_choice_router: bool = False
    moe_normalize_expert_weights: bool = False
    num_shared_experts: int = 0

    def __post_init__(self) -> None:
        refuse_unless(
            self,
            causal=False,
            prenorm=False,
            parallel_block=False,
            use_rms_norm=False,
            scale_attn_weights=True,
            scale_attn_by_inverse_layer_idx=False,
            rotary_emb_fraction=1.0,
            rotary_emb_interleaved=False,
            rotary_emb_scale_base=None,
            expert_choice_router=False,
            moe_normalize_expert_weights=False,
            num_shared_experts=0,
        )
        # Dynamic scaling begins beyond `longest`.
        refuse_other_ropes(self.rope_parameters, "default", "dynamic")
        refuse_odd_heads(self.head_size)
        if self.head_dim is not None:
            refuse_unless(self, head_dim=self.head_size)
        if self.moe_every_n_layers and not 1 <= self.moe_top_k <= self.num_experts:
            raise ValueError(
                f"`moe_top_k` of {self.moe_top_k} does not go with `num_experts`, "
                f"{self.num_experts}"
            )
        if self.longest < 1:
            raise ValueError("`max_position_embeddings` and `n_positions` leave none for a token")

    @property
    def head_size(self) -> int:
        """The width of each attention head."""
        return refuse_remainder(self, "hidden_size", "num_attention_heads")

    @property
    def rows(self) -> int:
        """Rows of the table of word embeddings, which is padded to a multiple of some number."""
        multiple = self.pad_vocab_size_multiple
        return -(-self.vocab_size // multiple) * multiple

    def table_numbers(self, longest: int) -> int:
        """Numbers in the table of rotary positions."""
        return longest * self.head_size

    @property
    def longest(self) -> int:
        """Tokens of the longest text there are positions for.

        With a scaling factor the model takes longer texts than it was trained with. What the
        authors' code makes of those depends on the texts before and beside them, so they are
        refused here.
        """
        if self.rotary_scaling_factor is not None:
            return self.max_trained_positions
        return max(self.max_position_embeddings, self.n_positions)


@dataclass(frozen=True, slots=True)
class Gated:
    """down(up(x) * activation(gate(x)))."""

    up_gate: Linear  # D -> 2 inner
    activation: Activation
    down: Linear  # inner -> D


@dataclass(frozen=True, slots=True)
class Plain:
    """down(gelu(up(x)))."""

    up: Linear  # D -> inner
    down: Linear  # inner -> D


@dataclass(frozen=True, slots=True)
class Mixture:
    """For each row the sum of some experts, each a `Plain` without biases, and one bias."""

    router: Linear  # D -> experts
    experts: Experts
    bias: Array  # (D,)


@dataclass(frozen=True, slots=True)
class Layer:
    qkv: Linear  # D -> 3 D
    attention_out: Linear  # D -> D
    attention_norm: Norm
    mlp: Gated | Plain | Mixture
    mlp_norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    config: Config
    word_embeddings: Array  # (vocabulary, D)
    embedding_norm: Norm
    rope: Array
    attention: Attention
    layers: tuple[Layer, ...]


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under the authors' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads
    size = config.head_size

    def mixture(name: str) -> Mixture:
        shape = (config.num_experts, inner, width)
        up, down = (
            tensors.take(f"{name}.experts.mlp.{w}", shape[0] * inner, width).reshape(shape)
            for w in ("w1", "w2")
        )
        return Mixture(
            router=read.linear(f"{name}.router.layer", width, config.num_experts, bias=False),
            experts=ops.experts_layer(up, down.swapaxes(1, 2)),
            bias=read.array(f"{name}.experts.bias", width),
        )

    def mlp(name: str, index: int) -> Gated | Plain | Mixture:
        every = config.moe_every_n_layers
        if every and index % every == 1:
            return mixture(name)
        down = read.linear(f"{name}.fc2", inner, width, bias=config.mlp_fc2_bias)
        bias = config.mlp_fc1_bias
        if config.activation_function == "gelu":
            return Plain(read.linear(f"{name}.fc1", width, inner, bias=bias), down)
        halves = {f"{name}.fc11": inner, f"{name}.fc12": inner}
        gate = GATES.get(config.activation_function or "", config.hidden_act)
        activation = read_activation(tensors, gate, f"{name}.act_fn")
        return Gated(read.joined(halves, width, bias=bias), activation, down)

    def layer(name: str, index: int) -> Layer:
        bias = config.qkv_proj_bias
        return Layer(
            qkv=read.linear(f"{name}.attn.Wqkv", width, 3 * width, bias=bias),
            attention_out=read.linear(f"{name}.attn.out_proj", width, width, bias=bias),
            attention_norm=read.norm(f"{name}.norm1", width),
            mlp=mlp(f"{name}.mlp", index),
            mlp_norm=read.norm(f"{name}.norm2", width),
        )

    theta = config.rope_parameters.rope_theta if config.rope_parameters else config.rope_theta
    return Weights(
        config=config,
        word_embeddings=read.word_embeddings(config.rows, config.type_vocab_size, width)[0],
        embedding_norm=read.norm("emb_ln", width),
        rope=ops.float32(rope_table(size, theta, inputs.longest)),
        attention=Attention(heads, heads, scale=size**-0.5),
        layers=tuple(layer(f"encoder.layers.{i}", i) for i in range(config.num_hidden_layers)),
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer, of the rows that are read (N or B, D)."""
    eps = weights.config.layer_norm_eps

    def embed(ids: Array) -> Array:
        return ops.layer_norm(
            ops.embedding(weights.word_embeddings, ids), weights.embedding_norm, eps
        )

    hidden = ops.rows(embed, batch.ids)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights, layer, hidden, batch, read)
    return hidden


def _layer(
    ops: Ops, weights: Weights, layer: Layer, hidden: Array, batch: Batch, read: Read
) -> Array:
    config = weights.config
    width, eps = config.hidden_size, config.layer_norm_eps

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        qk, v = columns(ops.linear(hidden, layer.qkv), 2 * width, width)
        return *columns(ops.rope(qk, weights.rope, positions), width, width), v

    def after_attention(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        hidden = ops.layer_norm(hidden, layer.attention_norm, eps)
        hidden = ops.add(_mlp(ops, layer.mlp, config, hidden), hidden)
        return ops.layer_norm(hidden, layer.mlp_norm, eps)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, weights.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)


def _mlp(ops: Ops, mlp: Gated | Plain | Mixture, config: Config, x: Array) -> Array:
    match mlp:
        case Gated():
            inner = config.intermediate_size
            up, gate = columns(ops.linear(x, mlp.up_gate), inner, inner)
            return ops.linear(ops.multiply(ops.activate(gate, mlp.activation), up), mlp.down)
        case Plain():
            return ops.linear(ops.gelu(ops.linear(x, mlp.up)), mlp.down)
        case Mixture():
            scores = ops.linear(x, mlp.router)
            return ops.add(ops.experts(x, scores, config.moe_top_k, mlp.experts), mlp.bias)
