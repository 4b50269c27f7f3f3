"""What a model computes one result for: the tokens of a text or of a pair of texts."""

from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
"""The tokens of one text, (L,)."""


@dataclass(frozen=True, slots=True)
class LocatedTokens:
    """All tokens of a text, with their places in it.

    The first `prefix` tokens (special ones, and the prompt) and the last `suffix` (special ones)
    are not of the text itself.

    >>> ids = np.array([101, 7592, 2088, 102], np.int32)  # [CLS] hello world [SEP]
    >>> LocatedTokens(ids, [(0, 0), (0, 5), (6, 11), (0, 0)], prefix=1, suffix=1).content
    2
    """

    ids: TokenIds  # (L,)
    offsets: list[tuple[int, int]]
    """The first character of each token, and the one after its last. The text itself begins at 0,
    the prompt before that."""
    prefix: int
    suffix: int

    @property
    def content(self) -> int:
        """How many tokens are of the text itself."""
        return len(self.ids) - self.prefix - self.suffix


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """What has one place in the queue: a text, a pair of texts, or a text with spans."""

    ids: TokenIds  # (L,)
    types: TokenIds | None = None  # (L,): 1 for tokens of a pair's second text; None: all are 0
    spans: tuple[tuple[int, int], ...] = ()
    """The parts of the text that have results of their own: first token, and the one after the
    last."""
    unseen: int = 0
    """How many tokens at its end no token attends to."""
    kept: NDArray[np.bool_] | None = None  # (L,): tokens that have vectors of their own; None: all
    half: bool = False
    """Whether vectors of its tokens are wanted in float16."""

    def count_kept(self) -> int:
        """How many of its tokens have vectors of their own."""
        return len(self) if self.kept is None else int(self.kept.sum())

    def __len__(self) -> int:
        """How many tokens it has."""
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
        of_tokens = head == "tokens" and (self.half or self.kept is not None)
        of_tokens = of_tokens or self.unseen
        if self.types is None and not self.spans and not of_tokens:
            return blake2b(ids, digest_size=16, person=person).digest()
        # `person` tells these from plain texts; lengths come first, to tell each part from the
        # next.
        typed = self.types is not None
        shape = [typed, len(self.ids), *chain.from_iterable(self.spans)]
        digest = blake2b(np.array(shape, "<i4").tobytes(), digest_size=16, person=person + b"+")
        digest.update(ids)
        if self.types is not None:
            digest.update(self.types.astype("<i4", copy=False).tobytes())
        if of_tokens:
            kept = b"" if self.kept is None else np.packbits(self.kept).tobytes()
            digest.update(np.array([self.unseen, self.half], "<i4").tobytes() + kept)
        return digest.digest()
