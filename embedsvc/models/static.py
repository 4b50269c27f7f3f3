"""Static embeddings: a vector for each token, looked up, for the mean to be taken.

sentence-transformers' StaticEmbedding (static-retrieval-mrl-en-v1) and model2vec (potion) are this.
"""

from dataclasses import dataclass

import msgspec

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.ops.base import Array, Batch, Ops


class Config(msgspec.Struct, frozen=True):
    """Nothing: the table says it all."""


@dataclass(frozen=True, slots=True)
class Weights:
    words: Array  # (vocabulary, D)


def prepare(ops: Ops, tensors: Tensors, config: Config) -> Weights:
    """The table on the device, from a tensor under either library's name.

    In model2vec's, tokens may share a row (`mapping`) and weigh more or less (`weights`).
    """
    name = "embeddings" if "embeddings" in tensors else "embedding.weight"
    words = tensors.take(name, *tensors.shape(name))
    if "mapping" in tensors:
        words = words[tensors.take_stored("mapping")]
    if "weights" in tensors:
        words = words * tensors.take("weights", len(words))[:, None]
    tensors.finish(())
    return Weights(ops.array(words))


def forward(ops: Ops, weights: Weights, config: Config, batch: Batch) -> Array:
    """The vectors of the tokens (N, D)."""
    return ops.embedding(weights.words, batch.ids)
