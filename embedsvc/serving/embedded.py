"""What a request for vectors gets."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.texts.late_chunking import Chunk


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one request, and what became of its inputs."""

    vectors: NDArray[np.float32]  # (n, D)
    tokens: int
    """Tokens of all inputs, special tokens included."""
    truncated: int = 0
    """How many inputs were cut."""
    split: int = 0
    """How many inputs were split, so that their vectors are averages over their parts."""
    chunks: list[list[Chunk]] | None = None
    """With late chunking, the chunks of each input; `vectors` has a row for each chunk."""
