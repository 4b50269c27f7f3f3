"""What is computed: the tokens of a text or of a pair, and where in the text they come from."""

from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

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
class Item:
    """What has one place in the waiting line: a text, a pair of texts, or a text with spans."""

    ids: TokenIds  # (L,)
    types: TokenIds | None = None  # (L,): 1 for tokens of a pair's second text; None: all are 0
    spans: tuple[tuple[int, int], ...] = ()
    """Parts of the text that have results of their own: first token, and the one after the last."""

    def __len__(self) -> int:
        """Its tokens."""
        return len(self.ids)

    def key(self, head: str) -> bytes:
        """A digest (16 bytes) of all that this item's result of a head depends on.

        >>> text = Item(np.array([101, 102], np.int32))
        >>> text.key("vector") == Item(text.ids.copy()).key("vector")
        True
        >>> text.key("vector") == text.key("scores")
        False
        """
        ids = self.ids.astype("<i4", copy=False).tobytes()
        person = b"" if head == "vector" else head.encode()
        if self.types is None and not self.spans:
            return blake2b(ids, digest_size=16, person=person).digest()
        # Apart from plain texts by `person`, and each part from the next by how long it is.
        typed = self.types is not None
        shape = [typed, len(self.ids), *chain.from_iterable(self.spans)]
        digest = blake2b(np.array(shape, "<i4").tobytes(), digest_size=16, person=person + b"+")
        digest.update(ids)
        if self.types is not None:
            digest.update(self.types.astype("<i4", copy=False).tobytes())
        return digest.digest()
