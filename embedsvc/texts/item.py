"""The tokens of one text, and where in the text they come from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
"""The tokens of one text, (L,)."""


@dataclass(frozen=True, slots=True)
class LocatedTokens:
    """All tokens of a text, of which the first `head` and the last `tail` are not the text's own.

    The head is the model's special tokens and the prompt, the tail special tokens.
    """

    ids: TokenIds  # (L,)
    offsets: list[tuple[int, int]]
    """Where each token begins and ends in the text: characters, less the prompt."""
    head: int
    tail: int

    @property
    def content(self) -> int:
        """How many tokens are the text's own."""
        return len(self.ids) - self.head - self.tail


@dataclass(frozen=True, slots=True, eq=False)
class SpannedText:
    """A text of which vectors are wanted for spans of its tokens, from one pass over all of it."""

    ids: TokenIds  # (L,)
    spans: tuple[tuple[int, int], ...]
    """First token, and the one after the last."""

    def __len__(self) -> int:
        return len(self.ids)


Text = TokenIds | SpannedText
"""What a pass is asked for: a vector (D,), or the vectors of k spans (k, D)."""
