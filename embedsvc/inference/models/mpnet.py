"""MPNet: BERT with a learned bias for how far apart tokens are.

Song et al., 2020, arXiv:2004.09297. all-mpnet-base-v2 and multi-qa-mpnet are this architecture.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.models.activations import HiddenAct, read_activation
from embedsvc.inference.models.configs import Eps, Sizes, refuse_remainder
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.base import Attention, Inputs, Ops

FIRST_POSITION = 2
"""The table of positions begins with two rows that no token has, whatever the padding token is."""
FARTHEST = 128
"""From this distance on, all distances share one bias."""

UNUSED = bert.UNUSED
EXPANDED = ("embeddings.position_embeddings.", "encoder.relative_attention_bias.")
"""Parts of the names of tensors that are held as floats, also where they are quantised."""


class Config(Sizes, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    layer_norm_eps: Eps
    hidden_act: HiddenAct
    relative_attention_num_buckets: Literal[32] = 32

    def __post_init__(self) -> None:
        refuse_remainder(self, "hidden_size", "num_attention_heads")
        if self.longest < 1:
            positions = self.max_position_embeddings
            raise ValueError(f"`max_position_embeddings` of {positions} leave none for a token")

    @property
    def longest(self) -> int:
        """The most tokens of a text that there are positions for."""
        return self.max_position_embeddings - FIRST_POSITION

    def table_numbers(self, longest: int) -> int:
        """Numbers in the table of biases: one for every distance in a text, for each head."""
        return self.num_attention_heads * (2 * longest - 1)


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> bert.Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    heads, buckets = config.num_attention_heads, config.relative_attention_num_buckets

    def layer(name: str) -> bert.Layer:
        block = f"{name}.attention"
        return bert.Layer(
            qkv=read.joined({f"{block}.attn.{x}": width for x in "qkv"}, width),
            attention_out=read.linear(f"{block}.attn.o", width, width),
            attention_norm=read.norm(f"{block}.LayerNorm", width),
            up=read.linear(f"{name}.intermediate.dense", width, inner),
            activation=read_activation(
                tensors, config.hidden_act, f"{name}.intermediate.intermediate_act_fn"
            ),
            down=read.linear(f"{name}.output.dense", inner, width),
            mlp_norm=read.norm(f"{name}.output.LayerNorm", width),
        )

    places = config.max_position_embeddings
    positions = tensors.take("embeddings.position_embeddings.weight", places, width)
    biases = tensors.take("encoder.relative_attention_bias.weight", buckets, heads)
    distances = np.arange(1 - inputs.longest, inputs.longest)
    bias = ops.array(biases[bucket(distances, buckets)].T)
    return bert.Weights(
        word_embeddings=read.array("embeddings.word_embeddings.weight", config.vocab_size, width),
        position_embeddings=ops.array(positions[FIRST_POSITION:][: inputs.longest]),
        embedding_norm=read.norm("embeddings.LayerNorm", width),
        attention=Attention(heads, heads, scale=(width // heads) ** -0.5, bias=bias),
        layers=tuple(layer(f"encoder.layer.{i}") for i in range(config.num_hidden_layers)),
        width=width,
        eps=config.layer_norm_eps,
    )


def bucket(distance: NDArray[np.integer], buckets: int) -> NDArray[np.integer]:
    """The number of the bias for keys that stand `distance` tokens after their query in the text.

    Half of the buckets are for each direction. Of these, half are for one distance each, and the
    others for ranges of distances that grow up to FARTHEST.

    >>> bucket(np.array([-200, -8, -1, 0, 1, 8, 200]), 32).tolist()
    [15, 8, 1, 0, 17, 24, 31]
    """
    side = buckets // 2
    exact = side // 2
    steps = np.abs(distance)
    grown = np.log(np.maximum(steps, 1).astype(np.float32) / exact)
    far = exact + (grown / math.log(FARTHEST / exact) * (side - exact)).astype(np.int64)
    near = np.where(steps < exact, steps, np.minimum(far, side - 1))
    return near + side * (distance > 0)


forward = bert.forward
