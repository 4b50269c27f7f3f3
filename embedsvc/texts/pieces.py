"""Where a long text is cut, to be tokenised a piece at a time.

A text is cut before white space that follows something else: hardly any tokeniser has a token that
reaches over such a place, so the tokens of the pieces are those of the text. Where a whole piece
has no white space it is cut anywhere, and the tokens beside the cut may not be the text's own.
"""

from collections.abc import Iterator
from typing import NamedTuple

PIECE = 16_384
"""The most characters of a piece. The library needs some 20 ms and 10 MB for them."""
SPACES = " \n"
"""The white space that is looked for: hardly any text has neither."""


class Piece(NamedTuple):
    """A part of a text."""

    start: int
    stop: int
    clean: bool
    """Whether it is cut off before white space, or at an end of the text."""


def from_start(text: str, size: int = PIECE) -> Iterator[Piece]:
    """The pieces of a text, the first one first.

    >>> list(from_start("one two three", 9))
    [Piece(start=0, stop=7, clean=True), Piece(start=7, stop=13, clean=True)]
    >>> list(from_start("abcdef", 4))
    [Piece(start=0, stop=4, clean=False), Piece(start=4, stop=6, clean=True)]
    """
    start = 0
    while start < len(text):
        stop, clean = _cut_after(text, start, size)
        yield Piece(start, stop, clean)
        start = stop


def from_end(text: str, size: int = PIECE) -> Iterator[Piece]:
    """The pieces of a text, the last one first.

    >>> list(from_end("one two three", 9))
    [Piece(start=7, stop=13, clean=True), Piece(start=0, stop=7, clean=True)]
    """
    stop = len(text)
    while stop > 0:
        start, clean = _cut_before(text, stop, size)
        yield Piece(start, stop, clean)
        stop = start


def _cut_after(text: str, start: int, size: int) -> tuple[int, bool]:
    """Where the piece that begins at `start` stops, and whether that is a clean place."""
    stop = start + size
    if stop >= len(text):
        return len(text), True
    at = max(text.rfind(space, start, stop) for space in SPACES)
    while at > start and text[at - 1].isspace():
        at -= 1
    return (at, True) if at > start else (stop, False)


def _cut_before(text: str, stop: int, size: int) -> tuple[int, bool]:
    """Where the piece that stops at `stop` begins, and whether that is a clean place."""
    start = stop - size
    if start <= 0:
        return 0, True
    word = start
    while word < stop and text[word].isspace():
        word += 1
    found = [at for space in SPACES if (at := text.find(space, word, stop)) >= 0]
    if not found:
        return start, False
    first = min(found)
    while text[first - 1].isspace():
        first -= 1
    return first, True
