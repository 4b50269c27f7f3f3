"""Sparse vectors of queries that need no pass: each token has a weight that training gave it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.checkpoints.checkpoint import Checkpoint
from embedsvc.checkpoints.sparse import QUERY, query_weights
from embedsvc.errors import CheckpointError
from embedsvc.inference.heads.sparse_vector import SparseVector
from embedsvc.texts.item import Item
from embedsvc.texts.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class QueryWeights:
    """The weights of a model's tokens in queries."""

    weights: NDArray[np.float32]  # (V,)
    before: int
    """How many special tokens the tokeniser puts before a text, and `after` it."""
    after: int
    by_default: bool
    """Whether texts of which it is not said are queries."""

    def vectors(self, items: Sequence[Item]) -> list[SparseVector]:
        """The sparse vector of each item: the weights of its tokens that are not 0."""
        found: list[SparseVector] = []
        for item in items:
            ids = np.unique(item.ids[self.before : len(item) - self.after])
            ids = ids[ids < len(self.weights)]
            kept = ids[self.weights[ids] > 0]
            found.append(SparseVector(kept, self.weights[kept]))
        return found


def read_query_weights(checkpoint: Checkpoint, tokenizer: Tokenizer) -> QueryWeights | None:
    """Those of a checkpoint; None where its queries go through the model as documents do.

    Raises `CheckpointError`.
    """
    sparse = checkpoint.sparse
    if sparse is None or sparse.queries is None:
        return None
    model = checkpoint.card.id
    weights = query_weights(sparse, model, tokenizer.id_of, tokenizer.vocabulary)
    if len(weights) > tokenizer.vocabulary:
        raise CheckpointError(
            f"model `{model}`: {sparse.queries}: there are weights for {len(weights)} tokens, and "
            f"the tokeniser has {tokenizer.vocabulary}"
        )
    parts = tokenizer.frame(1).parts
    place = next(i for i, part in enumerate(parts) if part.text is not None)
    before, after = (sum(len(part.ids) for part in some) for some in (parts[:place], parts[place:]))
    return QueryWeights(weights, before, after, sparse.default == QUERY)
