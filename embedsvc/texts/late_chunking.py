"""Late chunking: vectors of the chunks of a text, each made in sight of the whole text.

The model reads the text in one pass, and each chunk's hidden states are pooled by themselves
(Günther et al., 2024, arXiv:2409.04701). A token belongs to the chunk in which it begins; what
stands before the text (special tokens, the prompt) goes with a chunk that begins the text, what
stands after it with a chunk that ends it. So one chunk of all the text has the text's own vector.
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
    """A chunk of a text, as an answer tells it."""

    start: int
    end: int
    tokens: int


class Tally:
    """The chunks of one request, counted before anything of it is computed."""

    def __init__(self, most_rows: int) -> None:
        self._most = min(most_rows, CHUNKS)
        self._rows = self._tokens = 0

    def add(self, text: Item) -> None:
        """Raises `BadRequest` when there are too many of them, or of tokens in all of them."""
        self._rows += len(text.spans)
        self._tokens += sum(stop - first for first, stop in text.spans)
        if self._rows > self._most:
            raise BadRequest(f"Too many chunks: one answer has {self._most} of them at most.")
        if self._tokens > CHUNK_TOKENS:
            raise BadRequest(
                f"Too much overlap: the chunks of one request have {CHUNK_TOKENS} tokens at most, "
                "of which one that is in several chunks counts in each."
            )


def span(
    name: str, text: str, tokens: LocatedTokens, wanted: Chunking | Sequence[Offsets]
) -> tuple[Item, list[Chunk]]:
    """The text with the spans of its chunks. Raises `BadRequest` that names input and chunk."""
    starts = _starts(text, tokens)
    if isinstance(wanted, Chunking):
        chunks = _of_size(name, tokens, wanted)
        offsets = [(int(starts[first]), tokens.offsets[tokens.head + stop - 1][1])
                   for first, stop in chunks]  # fmt: skip
    else:
        offsets = list(wanted)
        chunks = [_of_offsets(name, starts, len(text), start, end) for start, end in offsets]
    spans = tuple(
        (
            0 if first == 0 else first + tokens.head,
            len(tokens.ids) if stop == tokens.content else stop + tokens.head,
        )
        for first, stop in chunks
    )
    told = [
        Chunk(start, end, stop - first)
        for (start, end), (first, stop) in zip(offsets, spans, strict=True)
    ]
    return Item(tokens.ids, spans=spans), told


def _starts(text: str, tokens: LocatedTokens) -> NDArray[np.int64]:
    """Where each of the text's own tokens begins; some tokenisers count the space before it."""
    begins: list[int] = []
    for start, end in tokens.offsets[tokens.head : len(tokens.ids) - tokens.tail]:
        start = max(start, 0)
        while start < end - 1 and text[start].isspace():
            start += 1
        begins.append(start)
    return np.asarray(begins, np.int64)


def _of_size(name: str, tokens: LocatedTokens, wanted: Chunking) -> list[tuple[int, int]]:
    if wanted.size < 1 or not 0 <= wanted.overlap < wanted.size:
        raise BadRequest("Invalid 'chunking': `size` is at least 1, and `overlap` is less than it.")
    if not tokens.content:
        raise NoTokens(f"Invalid '{name}': it has no token to make a chunk of.")
    step = wanted.size - wanted.overlap
    last = max(tokens.content - wanted.overlap, 1)
    return [
        (first, min(first + wanted.size, tokens.content)) for first in range(0, last, step)
    ]  # fmt: skip


def _of_offsets(
    name: str, starts: NDArray[np.int64], length: int, start: int, end: int
) -> tuple[int, int]:
    if not 0 <= start < end <= length:
        raise BadRequest(
            f"Invalid 'chunks': [{start}, {end}] is no part of the {length} characters of '{name}'."
        )
    first, stop = (int(i) for i in np.searchsorted(starts, (start, end)))
    if first == stop:
        raise BadRequest(f"Invalid 'chunks': in [{start}, {end}] of '{name}' begins no token.")
    return first, stop
