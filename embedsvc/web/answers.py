"""Vectors as JSON, for the answers of every dialect.

A long answer is written in pieces, with turns of the event loop between them. There is only ever
one copy of it, and each piece is let go once the client has read it.
"""

import binascii
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.bounds import VECTOR_BYTES
from embedsvc.serving.quantize import quantize
from embedsvc.texts.requests import ComponentType, EncodingFormat
from embedsvc.web.budget import hold_answer, turn_to_write

COMPONENTS = 25_000
"""Components of vectors written in one turn of the event loop, which takes about a millisecond."""
TURN_BYTES = 1 << 20
"""Bytes of JSON of any sort written in one turn of the event loop, in a millisecond or two."""
ROW = 100
"""Bytes of a row beside its vector, at most."""
BYTES: dict[ComponentType, tuple[float, float]] = {
    "float": (13, 16 / 3),
    "int8": (4, 4 / 3),
    "uint8": (4, 4 / 3),
    "binary": (4 / 8, 1 / 6),
    "ubinary": (4 / 8, 1 / 6),
}
"""Bytes that one component of a vector takes in each type: as a number, and in base64."""
Form = tuple[ComponentType, EncodingFormat]
"""One way to write a vector: the type of its components, as a list of numbers or in base64."""
FLOATS: Form = ("float", "float")
"""What a vector is written as where a request does not say."""
WriteRows = Callable[[slice], bytes]
"""Writes the rows of a slice as JSON, with commas between them."""


def most_rows(dimensions: int, forms: Iterable[Form]) -> int:
    """How many rows an answer may have, if each has a vector of that size in all of the forms.

    >>> most_rows(384, [("float", "float")]) > most_rows(1024, [("float", "float")])
    True
    """
    component = sum(BYTES[dtype][form == "base64"] for dtype, form in forms)
    return int(VECTOR_BYTES / (ROW + dimensions * component))


async def write_vectors(
    vectors: NDArray[np.float32],
    dtype: ComponentType = "float",
    encoding_format: EncodingFormat = "float",
) -> list[bytes]:
    """A JSON list of vectors (n, D), each a list of numbers or a string in base64, in pieces.

    Raises what `in_turns` does.
    """

    def write(some: slice) -> bytes:
        return dump_items(values_of(vectors[some], dtype, encoding_format))

    return [b"[", *await in_turns(vectors, write), b"]"]


async def in_turns(
    vectors: NDArray[np.float32], write: WriteRows, *, beside: int = 0
) -> list[bytes]:
    """What `write` makes of a slice of the rows at a time, with commas between.

    Each row has about so many numbers `beside` its vector.

    Other requests have their turns between two slices. Raises `TooManyBytes` if all answers that
    are being written, or wait to be read, are too large together.
    """
    step = max(COMPONENTS // max(vectors.shape[1] + beside, 1), 1)
    if len(vectors) <= step:
        return [write(slice(0, step))]
    pieces: list[bytes] = []
    held = vectors.nbytes + 4 * beside * len(vectors)
    for first in range(0, len(vectors), step):
        hold_answer(held)
        async with turn_to_write():
            pieces.append(write(slice(first, first + step)) + b",")
        held += len(pieces[-1])
    pieces[-1] = pieces[-1][:-1]
    return pieces


async def dump_in_turns(rows: Iterable[Any]) -> list[bytes]:
    """The JSON of rows with commas between them, in pieces, with turns for others between those.

    Rows may have numbers of NumPy's, and each is written in one turn. Raises what `in_turns` does.
    """
    return await join_in_turns([_dump(row)] for row in rows)


async def join_in_turns(rows: Iterable[Iterable[bytes]]) -> list[bytes]:
    """What `dump_in_turns` gives, of rows each of which is the parts of its JSON.

    A part is made in one turn. Raises what `in_turns` does.
    """
    parts = _with_commas(rows)
    pieces = [_join_some(parts)]
    held = len(pieces[0])
    while len(pieces[-1]) >= TURN_BYTES:
        hold_answer(held)
        async with turn_to_write():
            pieces.append(_join_some(parts))
        held += len(pieces[-1])
    return pieces


def values_of(
    vectors: NDArray[np.float32], dtype: ComponentType, encoding_format: EncodingFormat
) -> Sequence[Any] | NDArray[Any]:
    """Each vector in a form that orjson writes: a row of an array, or a string.

    Floats are written in the fewest digits that read back to the same float32. Base64 is of the
    bytes of the values, little-endian.
    """
    values = quantize(vectors, dtype)
    if encoding_format == "base64":
        return [binascii.b2a_base64(row, newline=False).decode() for row in values]
    return values


def _with_commas(rows: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    for index, parts in enumerate(rows):
        if index:
            yield b","
        yield from parts


def _join_some(parts: Iterator[bytes]) -> bytes:
    """The next parts, a piece of them; nothing if there are none."""
    joined: list[bytes] = []
    size = 0
    while size < TURN_BYTES and (part := next(parts, None)) is not None:
        joined.append(part)
        size += len(part)
    return b"".join(joined)


def _dump(row: Any) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def dump_items(items: Any) -> bytes:
    """The items of a list or an array in JSON, without the brackets around them.

    >>> dump_items([{"a": 1}, [2]])
    b'{"a":1},[2]'
    """
    return _dump(items)[1:-1]
