"""DistilBERT: BERT without token types, under other names (Sanh et al., 2019, arXiv:1910.01108)."""

import msgspec

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import Layers, Rows, Size, refuse_remainder
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.base import Attention, Inputs, Ops

UNUSED = ("vocab_", "embeddings.position_ids")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = ("embeddings.position_embeddings.",)
"""Parts of the names of tensors that are held as floats, also where they are quantised."""
EPS = 1e-12
"""The epsilon of layer norms, which no config.json states."""


class Config(msgspec.Struct, frozen=True):
    """The fields of config.json that the pass depends on."""

    vocab_size: Rows
    dim: Size
    n_layers: Layers
    n_heads: Size
    hidden_dim: Size
    max_position_embeddings: Rows
    activation: HiddenAct

    def __post_init__(self) -> None:
        refuse_remainder(self, "dim", "n_heads")

    @property
    def rows(self) -> int:
        """Rows of the table of word embeddings."""
        return self.vocab_size

    @property
    def longest(self) -> int:
        """The most tokens of a text that there are positions for."""
        return self.max_position_embeddings


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> bert.Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner, heads = config.dim, config.hidden_dim, config.n_heads

    def layer(name: str) -> bert.Layer:
        block = f"{name}.attention"
        return bert.Layer(
            qkv=read.joined({f"{block}.{x}_lin": width for x in "qkv"}, width),
            attention_out=read.linear(f"{block}.out_lin", width, width),
            attention_norm=read.norm(f"{name}.sa_layer_norm", width),
            up=read.linear(f"{name}.ffn.lin1", width, inner),
            activation=read_activation(tensors, config.activation, f"{name}.ffn.activation"),
            down=read.linear(f"{name}.ffn.lin2", inner, width),
            mlp_norm=read.norm(f"{name}.output_layer_norm", width),
        )

    places = config.max_position_embeddings
    positions = tensors.take("embeddings.position_embeddings.weight", places, width)
    return bert.Weights(
        word_embeddings=read.array("embeddings.word_embeddings.weight", config.vocab_size, width),
        position_embeddings=ops.array(positions[: inputs.longest]),
        embedding_norm=read.norm("embeddings.LayerNorm", width),
        attention=Attention(heads, heads, scale=(width // heads) ** -0.5),
        layers=tuple(layer(f"transformer.layer.{i}") for i in range(config.n_layers)),
        width=width,
        eps=EPS,
    )


forward = bert.forward
