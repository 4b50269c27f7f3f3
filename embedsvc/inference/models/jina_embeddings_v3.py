"""Jina embeddings v3 as transformers has it: XLM-RoBERTa with rotary positions in place of learned
ones (Sturua et al., 2024, arXiv:2409.10173). Its tasks are LoRA adapters, one for each card."""

from dataclasses import dataclass

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import (
    Base,
    Eps,
    RopeParameters,
    Size,
    Sizes,
    refuse_odd_heads,
    refuse_other_ropes,
    refuse_remainder,
)
from embedsvc.inference.models.last_layer import read_rows, with_reads
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.base import (
    Array,
    Attention,
    Batch,
    Inputs,
    Norm,
    Ops,
    Read,
    columns,
    rope_table,
)

UNUSED = ("pooler.", "lm_head.")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.",)
"""Parts of the names of tensors that are held as floats, also where they are quantised."""


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    type_vocab_size: Size
    layer_norm_eps: Eps
    hidden_act: HiddenAct
    rope_theta: Base = 20_000.0
    rope_parameters: RopeParameters | None = None

    def __post_init__(self) -> None:
        refuse_other_ropes(self.rope_parameters, "default")
        refuse_odd_heads(self.head_size)

    @property
    def head_size(self) -> int:
        """The width of each attention head."""
        return refuse_remainder(self, "hidden_size", "num_attention_heads")

    def table_numbers(self, longest: int) -> int:
        """Numbers in the table of rotary positions."""
        return longest * self.head_size


@dataclass(frozen=True, slots=True)
class Weights:
    word_embeddings: Array  # (vocabulary, D)
    type_embeddings: Array | None  # (types, D); None: type 0 was added to the words
    embedding_norm: Norm
    rope: Array  # (longest, head size)
    attention: Attention
    layers: tuple[bert.Layer, ...]
    width: int
    eps: float


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads, size = config.num_attention_heads, config.head_size

    def layer(name: str) -> bert.Layer:
        block = f"{name}.self_attn"
        return bert.Layer(
            qkv=read.joined({f"{block}.{x}_proj": width for x in "qkv"}, width),
            attention_out=read.linear(f"{block}.o_proj", width, width),
            attention_norm=read.norm(f"{name}.post_attention_layernorm", width),
            up=read.linear(f"{name}.mlp.fc1", width, inner),
            activation=read_activation(tensors, config.hidden_act, f"{name}.mlp.activation_fn"),
            down=read.linear(f"{name}.mlp.fc2", inner, width),
            mlp_norm=read.norm(f"{name}.post_mlp_layernorm", width),
        )

    words, types = read.word_embeddings(
        config.vocab_size, config.type_vocab_size, width, pairs=inputs.pairs
    )
    rope = config.rope_parameters
    theta = rope.rope_theta if rope else config.rope_theta
    return Weights(
        word_embeddings=words,
        type_embeddings=types,
        embedding_norm=read.norm("embeddings.LayerNorm", width),
        rope=ops.float32(rope_table(size, theta, inputs.longest)),
        attention=Attention(heads, heads, scale=size**-0.5),
        layers=tuple(layer(f"layers.{i}") for i in range(config.num_hidden_layers)),
        width=width,
        eps=config.layer_norm_eps,
    )


def forward(ops: Ops, weights: Weights, batch: Batch) -> Array:
    """Hidden states of the last layer, of the rows that are read (N or B, D)."""

    def embed(ids: Array, *types: Array) -> Array:
        hidden = ops.embedding(weights.word_embeddings, ids)
        for type_ in types:
            hidden = ops.add(hidden, ops.embedding(weights.type_embeddings, type_))
        return ops.layer_norm(hidden, weights.embedding_norm, weights.eps)

    types = () if weights.type_embeddings is None else (batch.types,)
    hidden = ops.rows(embed, batch.ids, *types)
    for layer, read in with_reads(weights.layers, batch.read):
        hidden = _layer(ops, weights, layer, hidden, batch, read)
    return hidden


def _layer(
    ops: Ops, weights: Weights, layer: bert.Layer, hidden: Array, batch: Batch, read: Read
) -> Array:
    width, eps = weights.width, weights.eps

    def before_attention(hidden: Array, positions: Array) -> tuple[Array, ...]:
        qk, v = columns(ops.linear(hidden, layer.qkv), 2 * width, width)
        return *columns(ops.rope(qk, weights.rope, positions), width, width), v

    def after_attention(context: Array, hidden: Array) -> Array:
        hidden = ops.add(ops.linear(context, layer.attention_out), hidden)
        hidden = ops.layer_norm(hidden, layer.attention_norm, eps)
        inner = ops.activate(ops.linear(hidden, layer.up), layer.activation)
        hidden = ops.add(ops.linear(inner, layer.down), hidden)
        return ops.layer_norm(hidden, layer.mlp_norm, eps)

    q, k, v = ops.rows(before_attention, hidden, batch.positions)
    q, hidden = read_rows(ops, read, batch, q, hidden)
    context = ops.attention(q, k, v, weights.attention, batch.layout, read)
    return ops.rows(after_attention, context, hidden)
