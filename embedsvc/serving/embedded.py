"""What a request for vectors gets."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.inference.heads import SPARSE
from embedsvc.inference.heads.sparse_vector import SparseVector, merged
from embedsvc.serving.averaging import average
from embedsvc.texts.inputs import Tokenized
from embedsvc.texts.late_chunking import Chunk


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one request, and what became of its inputs."""

    vectors: NDArray[np.float32]  # (n, D); (n, 0) where none were asked for
    tokens: int
    """Tokens of all inputs, special tokens included."""
    truncated: int = 0
    """How many inputs were cut."""
    split: int = 0
    """How many inputs were split, so that their vectors are averages over their parts."""
    chunks: list[list[Chunk]] | None = None
    """With late chunking, the chunks of each input; `vectors` has a row for each chunk."""
    sparse: list[SparseVector] | None = None
    """The sparse vector of each input, if they were asked for."""
    token_name: Callable[[int], str] | None = None
    """The token with an id, as the vocabulary spells it; where there are sparse vectors."""


async def assemble(
    results: Mapping[str, Any],
    tokenized: Tokenized,
    *,
    normalize: bool,
    token_name: Callable[[int], str],
) -> Embedded:
    """The vectors of each input, from the results of heads for the parts of inputs.

    Vectors of several parts are averaged, and of sparse ones the largest weights are taken. Raises
    `EmbeddingFailed` if an average is zero.
    """
    lengths, parts = list(map(len, tokenized.items)), tokenized.parts
    split = sum(count > 1 for count in parts)
    vectors = results.get("vector")
    if vectors is None:
        vectors = np.empty((len(parts), 0), np.float32)
    elif split:
        vectors = average(vectors, lengths, parts, normalize=normalize)
    found = next((results[head] for head in SPARSE if head in results), None)
    if found is None:
        sparse = None
    elif split:  # it takes milliseconds for each text: the event loop goes on
        sparse = await asyncio.to_thread(_of_inputs, found, parts)
    else:
        sparse = _of_inputs(found, parts)
    names = None if found is None else token_name
    return Embedded(vectors, sum(lengths), tokenized.cut, split, sparse=sparse, token_name=names)


def _of_inputs(vectors: Sequence[SparseVector], parts: Sequence[int]) -> list[SparseVector]:
    """The sparse vector of each input, from those of its parts."""
    cuts = [0, *accumulate(parts)]
    return [merged(vectors[start:stop]) for start, stop in pairwise(cuts)]
