"""From a body in the encodings that its headers name to plain UTF-8, through a pipe of decoders."""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from embedsvc.bounds import ENCODINGS
from embedsvc.errors import BodyTooLarge, UnsupportedBody
from embedsvc.web.bodies.charsets import Charset, Marked
from embedsvc.web.bodies.unpacking import Deflated, Zstd
from embedsvc.wording.plain import shown

CHARSET = re.compile(rb";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
NONE = frozenset({"", "identity", "chunked"})
UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class Decoder(Protocol):
    """One step on the way from a body as it came to plain UTF-8."""

    def feed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        """Decode some more bytes. They come out in pieces. Raises `BadRequest`."""
        ...


def decoders(headers: Sequence[tuple[bytes, bytes]]) -> list[Decoder]:
    """The decoders for the encodings that a request's headers name, in the order to apply them.

    Raises `UnsupportedBody`.
    """
    charset = ""
    for name, value in headers:
        if name == b"content-type" and (found := CHARSET.search(value)):
            charset = found[1].decode("latin-1").lower()
    codings = [*_named(headers, b"content-encoding"), *_named(headers, b"transfer-encoding")]
    if len(codings) > ENCODINGS:
        raise UnsupportedBody(f"it has more than {ENCODINGS} encodings, one in another")
    stages = [_unpacker(coding) for coding in reversed(codings)]
    if charset and charset not in UTF_8:
        stages.append(Charset(charset))
    return [*stages, Marked()]


class Pipe:
    """Sends a body through decoders, one behind the other."""

    def __init__(self, stages: Sequence[Decoder], limit: int) -> None:
        """`limit` is how many bytes each of the decoders may give."""
        self._stages = stages
        self._limit = limit
        self._given = [0] * len(stages)

    def feed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        """Decode some more bytes. They come out in pieces, some of them empty.

        Raises `BadRequest`, `BodyTooLarge`.
        """
        return self._feed(0, data, last=last)

    def _feed(self, number: int, data: bytes, *, last: bool) -> Iterator[bytes]:
        if number == len(self._stages):
            yield data
            return
        for piece in self._stages[number].feed(data, last=last):
            self._given[number] += len(piece)
            if self._given[number] > self._limit:
                raise BodyTooLarge(self._limit)
            yield from self._feed(number + 1, piece, last=False)
            yield b""  # other requests may have a turn, even if the next decoder gave nothing
        if last:
            yield from self._feed(number + 1, b"", last=True)


def _named(headers: Sequence[tuple[bytes, bytes]], header: bytes) -> list[str]:
    """The codings that a header names, in the order in which they were applied."""
    values = ",".join(value.decode("latin-1") for name, value in headers if name == header)
    tokens = [token.strip().lower() for token in values.split(",")]
    return [token for token in tokens if token not in NONE]


def _unpacker(coding: str) -> Decoder:
    match coding:
        case "gzip" | "x-gzip":
            return Deflated("gzip")
        case "deflate":
            return Deflated("deflate")
        case "zstd":
            return Zstd()
        case _:
            raise UnsupportedBody(f"it is encoded as '{shown(coding)}'")
