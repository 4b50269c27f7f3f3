"""Late chunking: vectors of the chunks of a text, each made in sight of the whole text.

The model reads the text in one pass, and each chunk's hidden states are pooled by themselves
(Günther et al., 2024, arXiv:2409.04701). A token belongs to the chunk in which it begins. The
tokens before the text (special ones, the prompt) go with a chunk that begins the text, those after
it with a chunk that ends it, so that one chunk of all the text has the text's own vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedsvc.bounds import CHUNK_TOKENS, CHUNKS
from embedsvc.errors import BadRequest, NoTokens
from embedsvc.texts.item import Item, LocatedTokens
from embedsvc.texts.requests import Chunking, Offsets


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk of a text, as an answer shows it."""

    start: int
    """Its first character."""
    end: int
    """The character after its last."""
    tokens: int


class Tally:
    """Counts the chunks of one request, before anything of it is computed."""

    def __init__(self, most_rows: int) -> None:
        self._most = min(most_rows, CHUNKS)
        self._rows = self._tokens = 0

    def add(self, text: Item) -> None:
        """Raise `BadRequest` if there are now too many chunks, or tokens in all of them."""
        self._rows += len(text.spans)
        self._tokens += sum(stop - first for first, stop in text.spans)
        if self._rows > self._most:
            raise BadRequest(f"Too many chunks: one answer has {self._most} of them at most.")
        if self._tokens > CHUNK_TOKENS:
            raise BadRequest(
                f"Too much overlap: the chunks of one request have {CHUNK_TOKENS} tokens at most, "
                "of which one that is in several chunks counts in each."
            )


def find_spans(
    name: str, text: str, tokens: LocatedTokens, chunks: Chunking | Sequence[Offsets]
) -> tuple[Item, list[Chunk]]:
    """The text with the spans of its chunks. Raises `BadRequest` that names input and chunk.

    >>> ids = np.array([101, 7592, 2088, 102], np.int32)  # [CLS] hello world [SEP]
    >>> tokens = LocatedTokens(ids, [(0, 0), (0, 5), (6, 11), (0, 0)], prefix=1, suffix=1)
    >>> item, chunks = find_spans("input", "hello world", tokens, [(0, 5), (6, 11)])
    >>> item.spans
    ((0, 2), (2, 4))
    >>> chunks[1]
    Chunk(start=6, end=11, tokens=2)
    """
    starts = _starts(text, tokens)
    if isinstance(chunks, Chunking):
        own = _of_size(name, tokens.content, chunks)
        ends = [tokens.offsets[tokens.prefix + stop - 1][1] for _, stop in own]
        offsets = [(int(starts[first]), end) for (first, _), end in zip(own, ends, strict=True)]
    else:
        offsets = list(chunks)
        own = [_of_offsets(name, starts, len(text), start, end) for start, end in offsets]
    spans = tuple(
        (
            0 if first == 0 else first + tokens.prefix,
            len(tokens.ids) if stop == tokens.content else stop + tokens.prefix,
        )
        for first, stop in own
    )
    found = [
        Chunk(start, end, stop - first)
        for (start, end), (first, stop) in zip(offsets, spans, strict=True)
    ]
    return Item(tokens.ids, spans=spans), found


def _starts(text: str, tokens: LocatedTokens) -> NDArray[np.int64]:
    """Where each token of the text itself begins, without white space that a tokeniser counts to
    it."""
    begins: list[int] = []
    for start, end in tokens.offsets[tokens.prefix : len(tokens.ids) - tokens.suffix]:
        start = max(start, 0)
        while start < end - 1 and text[start].isspace():
            start += 1
        begins.append(start)
    return np.asarray(begins, np.int64)


def _of_size(name: str, tokens: int, chunking: Chunking) -> list[tuple[int, int]]:
    """Chunks of a size, as tokens of the text itself: the first one, and the one after the last.

    >>> _of_size("input", 10, Chunking(size=4, overlap=1))
    [(0, 4), (3, 7), (6, 10)]
    """
    size, overlap = chunking.size, chunking.overlap
    if size < 1 or not 0 <= overlap < size:
        raise BadRequest("Invalid 'chunking': `size` is at least 1, and `overlap` is less than it.")
    if not tokens:
        raise NoTokens(f"Invalid '{name}': it has no token to make a chunk of.")
    firsts = range(0, max(tokens - overlap, 1), size - overlap)
    return [(first, min(first + size, tokens)) for first in firsts]


def _of_offsets(
    name: str, starts: NDArray[np.int64], length: int, start: int, end: int
) -> tuple[int, int]:
    """A chunk from one character to another, as tokens of the text itself (see `_of_size`).

    >>> _of_offsets("input", np.array([0, 6, 12]), length=17, start=4, end=13)
    (1, 3)
    """
    if not 0 <= start < end <= length:
        raise BadRequest(
            f"Invalid 'chunks': [{start}, {end}] is no part of the {length} characters of '{name}'."
        )
    first, stop = (int(i) for i in np.searchsorted(starts, (start, end)))
    if first == stop:
        raise BadRequest(f"Invalid 'chunks': in [{start}, {end}] of '{name}' begins no token.")
    return first, stop
