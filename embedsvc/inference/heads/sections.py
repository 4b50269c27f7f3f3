"""The results that several heads have of one item, joined into one: bytes, as each of them is."""

from collections.abc import Sequence

import numpy as np


def join(results: Sequence[bytes]) -> bytes:
    """The results behind one another, and before them how long each is.

    >>> split(join([b"first", b"", b"third"]), 3)
    [b'first', b'', b'third']
    """
    lengths = np.array([len(result) for result in results], "<i8")
    return b"".join([lengths.tobytes(), *results])


def split(result: bytes, count: int) -> list[bytes]:
    """The `count` results that were joined."""
    lengths = np.frombuffer(result, "<i8", count).tolist()
    begin = 8 * count
    sections: list[bytes] = []
    for length in lengths:
        sections.append(result[begin : begin + length])
        begin += length
    return sections
