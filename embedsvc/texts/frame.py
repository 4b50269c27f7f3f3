"""The special tokens around a text, and around and between the two texts of a pair.

The tokeniser's own post-processor says which they are. It is asked once, with texts of its own
vocabulary, so that a query that goes with a thousand documents is tokenised once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from tokenizers import Encoding

from embedsvc.texts.item import Item, TokenIds


@dataclass(frozen=True, slots=True)
class Part:
    """A run of tokens of one type: special ones, or the place of a text."""

    ids: TokenIds
    type: int
    text: int | None = None
    """Which of the texts stands here; None: the special tokens `ids` do."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of which a text, or a pair of texts, is put together."""

    parts: tuple[Part, ...]

    @property
    def special(self) -> int:
        """How many tokens there are beside those of the texts."""
        return sum(len(part.ids) for part in self.parts)

    def without_types(self) -> "Frame":
        """The same, with all tokens of type 0."""
        return Frame(tuple(replace(part, type=0) for part in self.parts))

    def paired(self, separators: int) -> "Frame":
        """The frame of pairs that goes with this one of single texts, where the first text ends as
        a single one does, with so many separators, and the second as well.

        >>> cls, sep = (Part(np.array([n], np.int32), 0) for n in (0, 2))
        >>> single = Frame((cls, Part(cls.ids[:0], 0, text=0), sep))
        >>> texts = [np.array([n], np.int32) for n in (8, 9)]
        >>> single.paired(2).put_together(texts).ids.tolist()
        [0, 8, 2, 2, 9, 2]
        """
        at = next(place for place, part in enumerate(self.parts) if part.text is not None)
        before, first, after = self.parts[:at], self.parts[at], self.parts[at + 1 :]
        second = (replace(first, type=1, text=1), *(replace(part, type=1) for part in after))
        return Frame((*before, first, *after * separators, *second))

    def put_together(self, texts: Sequence[TokenIds]) -> Item:
        """The item of one text or two.

        >>> ids = [np.array([n], np.int32) for n in (101, 102)]
        >>> frame = Frame((Part(ids[0], 0), Part(ids[0][:0], 0, text=0), Part(ids[1], 0)))
        >>> frame.put_together([np.array([7592, 2088], np.int32)]).ids.tolist()
        [101, 7592, 2088, 102]
        """
        ids = [part.ids if part.text is None else texts[part.text] for part in self.parts]
        types = None
        if any(part.type for part in self.parts):
            runs = [part.type for part in self.parts]
            types = np.repeat(np.array(runs, np.int32), [len(run) for run in ids])
        return Item(np.concatenate(ids), types)


def frame_of(encoding: Encoding, texts: int) -> Frame | None:
    """The frame that an encoding of so many texts shows; None unless each has tokens there, in one
    place, all of one type."""
    parts: list[Part] = []
    tokens = zip(
        encoding.sequence_ids,
        encoding.type_ids,
        encoding.special_tokens_mask,
        encoding.ids,
        strict=True,
    )
    for (text, type_, special), run in groupby(tokens, key=lambda token: token[:3]):
        if text is None and not special:  # a text that stands in a second place
            return None
        ids = [] if text is not None else [token for *_, token in run]
        parts.append(Part(np.array(ids, np.int32), type_, text))
    found = [part.text for part in parts if part.text is not None]
    return Frame(tuple(parts)) if sorted(found) == list(range(texts)) else None
