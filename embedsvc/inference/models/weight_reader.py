"""Puts the layers that architectures ask for on the device, from a checkpoint's tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedsvc.checkpoints.quantized import join
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.ops.base import Array, Linear, Norm, Ops


@dataclass(frozen=True, slots=True)
class WeightReader:
    """Takes tensors by their names and shapes and hands them to the backend.

    All methods raise `CheckpointError` that names a tensor which is missing or has another shape.
    """

    ops: Ops
    tensors: Tensors

    def array(self, name: str, *shape: int) -> Array:
        """A tensor as it is. One of two dimensions is a table and may be quantised."""
        if len(shape) == 2:
            return self.ops.table(self.tensors.take_weight(name, *shape))
        return self.ops.array(self.tensors.take(name, *shape))

    def word_embeddings(
        self, vocabulary: int, types: int, width: int, *, pairs: bool = False
    ) -> tuple[Array, Array | None]:
        """The word embeddings, and what a token's type adds (types, D), if there are `pairs`.

        If there are `types` of tokens, the embedding of type 0 is added to each word's, since
        without pairs every token has that type; a type adds how it differs from type 0.
        """
        words = self.tensors.take("embeddings.word_embeddings.weight", vocabulary, width)
        if not types:
            return self.ops.table(words), None
        table = self.tensors.take("embeddings.token_type_embeddings.weight", types, width)
        added = self.ops.array(table - table[0]) if pairs else None
        return self.ops.table(words + table[0]), added

    def norm(self, name: str, width: int, *, bias: bool = True) -> Norm:
        """A layer norm, with or without a bias."""
        shift = self.array(f"{name}.bias", width) if bias else None
        return Norm(self.array(f"{name}.weight", width), shift)

    def linear(self, name: str, inputs: int, outputs: int, *, bias: bool = True) -> Linear:
        """A linear layer, with or without a bias."""
        return self.joined({name: outputs}, inputs, bias=bias)

    def joined(self, outputs: Mapping[str, int], inputs: int, *, bias: bool = True) -> Linear:
        """Linear layers that have the same inputs, as one layer with their outputs side by side.

        `outputs` has the names of the layers, in that order, and the width of each.
        """
        take = self.tensors.take_weight
        weight = join([take(f"{name}.weight", n, inputs) for name, n in outputs.items()])
        if not bias:
            return self.ops.linear_layer(weight, None)
        biases = [self.tensors.take(f"{name}.bias", n) for name, n in outputs.items()]
        return self.ops.linear_layer(weight, np.concatenate(biases))
