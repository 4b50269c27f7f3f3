"""What can be told of JSON by its bytes alone: how much there is to decode, and halves of pairs.

A long body is looked through in stretches, by NumPy, which lets other threads run meanwhile.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRETCH = 256 << 10
"""Bytes looked at together."""
QUOTE, COMMA, COLON, BACKSLASH = b'",:\\'
OPENING = b"[{"
ESCAPE = 6
"""Bytes of a `\\uXXXX`."""
NO_DIGIT = 255
_HEX = np.full(256, NO_DIGIT, np.uint8)
_HEX[list(b"0123456789")] = range(10)
_HEX[list(b"abcdef")] = _HEX[list(b"ABCDEF")] = range(10, 16)
Bytes = NDArray[np.uint8]
Positions = NDArray[np.intp]


class Counts(NamedTuple):
    """What a document has."""

    values: int
    """Strings, numbers, lists and objects, and the names of fields."""
    containers: int
    """The lists and objects among them."""


def count(body: bytes) -> Counts:
    """At least as many as decoding would make. Of what is no JSON the numbers mean nothing."""
    separators = containers = 0
    inside = False  # of a string
    for stretch in _stretches(body):
        quotes = stretch.part == QUOTE
        quotes[stretch.escaped()] = False
        strings = (np.cumsum(quotes, dtype=np.uint8) & 1).astype(np.bool_) ^ inside
        separating = (stretch.part == COMMA) | (stretch.part == COLON)
        opening = (stretch.part == OPENING[0]) | (stretch.part == OPENING[1])
        separators += int(np.count_nonzero(separating & ~strings))
        containers += int(np.count_nonzero(opening & ~strings))
        inside = bool(strings[-1])
    return Counts(1 + separators + containers, containers)


def mend(body: bytes) -> bytes:
    """The body with each half of a surrogate pair, as cutting a text in JavaScript leaves it,
    replaced by U+FFFD. It is the same object if there is none."""
    whole: Bytes = np.frombuffer(body, np.uint8)
    mended: Bytes | None = None
    held = np.empty(0, np.intp)  # a first half whose second may come in the next stretch
    for stretch in _stretches(body):
        at, high = _surrogates(whole, np.concatenate([held, stretch.start + stretch.escapes]))
        pairs = np.flatnonzero((np.diff(at) == ESCAPE) & high[:-1] & ~high[1:])
        alone = np.ones(len(at), np.bool_)
        alone[pairs] = alone[pairs + 1] = False
        held = at[-1:][high[-1:] & alone[-1:]]
        if stretch.last:
            held = held[:0]
        elif len(held):
            alone[-1] = False
        if alone.any():
            if mended is None:
                mended = whole.copy()
            mended[at[alone][:, None] + np.arange(2, ESCAPE)] = np.frombuffer(b"fffd", np.uint8)
    return body if mended is None else mended.tobytes()


class _Stretch(NamedTuple):
    start: int
    part: Bytes
    escapes: Positions
    """Where, in the part, a backslash begins an escape."""
    pending: bool
    """Whether the part's first byte is the second of an escape."""
    last: bool

    def escaped(self) -> Positions:
        """Where the second byte of an escape is."""
        found = self.escapes + 1
        found = found[found < len(self.part)]
        return np.concatenate([np.zeros(int(self.pending), np.intp), found])


def _stretches(body: bytes) -> Iterator[_Stretch]:
    whole: Bytes = np.frombuffer(body, np.uint8)
    pending = False
    for start in range(0, len(whole), STRETCH):
        part = whole[start : start + STRETCH]
        escapes = _escapes(part, pending=pending)
        yield _Stretch(start, part, escapes, pending, start + STRETCH >= len(whole))
        pending = len(escapes) > 0 and int(escapes[-1]) == len(part) - 1


def _escapes(part: Bytes, *, pending: bool) -> Positions:
    """Every other backslash of each run of them, from its first, or its second if that is told."""
    found = np.flatnonzero(part == BACKSLASH)
    numbers = np.arange(len(found))
    first = np.diff(found, prepend=-2) != 1
    place = numbers - np.maximum.accumulate(np.where(first, numbers, 0))
    if pending and len(found) and found[0] == 0:
        run = int(np.argmax(first[1:])) + 1 if first[1:].any() else len(found)
        place[:run] += 1
    return found[place % 2 == 0]


def _surrogates(whole: Bytes, escapes: Positions) -> tuple[Positions, NDArray[np.bool_]]:
    """The escapes that are half a pair, and whether each is the first half."""
    at = escapes[escapes + ESCAPE <= len(whole)]
    at = at[whole[at + 1] == ord("u")]
    digits = _HEX[whole[at[:, None] + np.arange(2, ESCAPE)]]
    half = (digits[:, 0] == 0xD) & (digits[:, 1] >= 8) & (digits != NO_DIGIT).all(axis=1)
    return at[half], digits[half, 1] < 0xC
