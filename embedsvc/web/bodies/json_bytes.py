"""What the bytes of JSON tell before it is decoded: how much there is, and broken surrogate pairs.

A long body is looked through in stretches, with NumPy, so that other threads run meanwhile.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRETCH = 256 << 10
"""How many bytes are looked at together."""
QUOTE, COMMA, COLON, BACKSLASH = b'",:\\'
OPENING = b"[{"
ESCAPE = 6
"""The length of a `\\uXXXX`."""
NO_DIGIT = 255
_HEX = np.full(256, NO_DIGIT, np.uint8)
_HEX[list(b"0123456789")] = range(10)
_HEX[list(b"abcdef")] = _HEX[list(b"ABCDEF")] = range(10, 16)
Bytes = NDArray[np.uint8]
Positions = NDArray[np.intp]


class Counts(NamedTuple):
    """How much a document has to decode."""

    values: int
    """How many strings, numbers, lists, objects and names of fields it has."""
    containers: int
    """How many of them are lists and objects."""


def count(body: bytes) -> Counts:
    """At least as many values as decoding would make. If it is not JSON, the numbers mean nothing.

    >>> count(b'{"a": [1, 2]}')
    Counts(values=5, containers=2)
    """
    separators = containers = 0
    inside = False  # whether the stretch begins inside a string
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
    r"""The body with U+FFFD in place of each half of a surrogate pair that stands alone.

    JavaScript leaves such a half where it cuts a text. The result is the same object if there is
    none.

    >>> mend(rb'"\ud83d\ude00 \ud83d"')
    b'"\\ud83d\\ude00 \\ufffd"'
    """
    whole: Bytes = np.frombuffer(body, np.uint8)
    mended: Bytes | None = None
    held = np.empty(0, np.intp)  # a first half, whose second may be in the next stretch
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
    """The places in the part where a backslash begins an escape."""
    pending: bool
    """Whether the first byte of the part is the second one of an escape."""
    last: bool

    def escaped(self) -> Positions:
        """The places where the second byte of an escape is."""
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
    """The backslashes that begin an escape: every other one of each run, from its first.

    If `pending`, a run at the very beginning counts from its second.
    """
    found = np.flatnonzero(part == BACKSLASH)
    numbers = np.arange(len(found))
    first = np.diff(found, prepend=-2) != 1
    place = numbers - np.maximum.accumulate(np.where(first, numbers, 0))
    if pending and len(found) and found[0] == 0:
        run = int(np.argmax(first[1:])) + 1 if first[1:].any() else len(found)
        place[:run] += 1
    return found[place % 2 == 0]


def _surrogates(whole: Bytes, escapes: Positions) -> tuple[Positions, NDArray[np.bool_]]:
    """The escapes that are half of a surrogate pair, and whether each is the first half."""
    at = escapes[escapes + ESCAPE <= len(whole)]
    at = at[whole[at + 1] == ord("u")]
    digits = _HEX[whole[at[:, None] + np.arange(2, ESCAPE)]]
    half = (digits[:, 0] == 0xD) & (digits[:, 1] >= 8) & (digits != NO_DIGIT).all(axis=1)
    return at[half], digits[half, 1] < 0xC
