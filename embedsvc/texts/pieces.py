"""Where a long text is cut, to be tokenised a piece at a time.

Before white space that follows something else, if there is any: hardly any tokeniser has a token
that reaches over that place, so that the tokens of the pieces are those of the text. Anywhere,
where there is none in a whole piece: the tokens beside such a place may not be the text's own.
"""

from collections.abc import Iterator
from typing import NamedTuple

PIECE = 16_384
"""Characters, at most. The library needs some 20 ms and 10 MB for them."""
SPACES = " \n"
"""White space that is looked for: there is hardly a text without any of it."""


class Piece(NamedTuple):
    """A part of a text."""

    start: int
    stop: int
    clean: bool
    """Whether it was cut off from the rest before white space."""


def from_start(text: str, size: int = PIECE) -> Iterator[Piece]:
    """The pieces of a text, the first one first."""
    start = 0
    while start < len(text):
        stop, clean = _cut_after(text, start, size)
        yield Piece(start, stop, clean)
        start = stop


def from_end(text: str, size: int = PIECE) -> Iterator[Piece]:
    """The pieces of a text, the last one first."""
    stop = len(text)
    while stop > 0:
        start, clean = _cut_before(text, stop, size)
        yield Piece(start, stop, clean)
        stop = start


def _cut_after(text: str, start: int, size: int) -> tuple[int, bool]:
    stop = start + size
    if stop >= len(text):
        return len(text), True
    at = max(text.rfind(space, start, stop) for space in SPACES)
    while at > start and text[at - 1].isspace():
        at -= 1
    return (at, True) if at > start else (stop, False)


def _cut_before(text: str, stop: int, size: int) -> tuple[int, bool]:
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
