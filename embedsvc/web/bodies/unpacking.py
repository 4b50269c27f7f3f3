"""From compressed bodies to plain ones, piece by piece.

Each piece takes bounded time and memory, whatever a client has compressed.
"""

import sys
import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

from embedsvc.bounds import MEMBERS, ZSTD_WINDOW_LOG
from embedsvc.errors import BadRequest

STEP = 128 << 10
"""How many bytes are unpacked at once, in less than a millisecond."""
SLICE = 16 << 10
"""How many bytes a decoder is given at once. It copies those that it leaves over."""


class Deflated:
    """gzip, of one or many members, or deflate.

    Deflate should be RFC 1951 within RFC 1950; some clients send it bare.
    """

    def __init__(self, coding: Literal["gzip", "deflate"]) -> None:
        self._coding = coding
        self._member: Any = None
        self._members = 0
        self._kept = b""

    def feed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        data = self._kept + data
        self._kept = b""
        if self._coding == "deflate" and not self._members and len(data) < 2 and not last:
            self._kept = data  # the first two bytes tell which of the two deflates it is
            return
        for start in range(0, len(data), SLICE):
            yield from self._feed(data[start : start + SLICE])
        if last and (self._member is not None or not self._members):
            raise _cut(self._coding)

    def _feed(self, data: bytes) -> Iterator[bytes]:
        more = True
        while data or more:
            if self._member is None:
                data = self._begin(data)
                if self._member is None:
                    return
            try:
                piece = self._member.decompress(data, STEP)
            except zlib.error:
                raise _damaged(self._coding) from None
            if self._member.eof:
                data, more, self._member = self._member.unused_data, False, None
            else:
                # A full piece means that the decoder may have more to give.
                data, more = self._member.unconsumed_tail, len(piece) == STEP
            yield piece

    def _begin(self, data: bytes) -> bytes:
        """Begin with the next member, if there is one, and return its bytes."""
        if self._coding == "gzip":
            wbits = 16 + zlib.MAX_WBITS
            if self._members:
                data = data.lstrip(b"\0")  # some programs fill the end with zeros
        else:
            if self._members and data:
                raise _damaged(self._coding)
            headed = data[:1] and data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0
            wbits = zlib.MAX_WBITS if headed else -zlib.MAX_WBITS
        if data:
            self._members += 1
            if self._members > MEMBERS:
                raise BadRequest(f"The body of your request has more than {MEMBERS} parts of gzip.")
            self._member = zlib.decompressobj(wbits)
        return data


class Zstd:
    """Zstandard, of one or many frames, with windows as large as RFC 9659 allows."""

    def __init__(self) -> None:
        # Few clients send it, and the library takes time to import.
        module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        self._zstd: Any = import_module(module)
        self._frame: Any = None
        self._frames = 0

    def feed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        for start in range(0, len(data), SLICE):
            yield from self._feed(data[start : start + SLICE])
        if last and (self._frame is not None or not self._frames):
            raise _cut("zstd")

    def _feed(self, data: bytes) -> Iterator[bytes]:
        more = True
        while data or (more and self._frame is not None):
            if self._frame is None:
                self._frames += 1
                if self._frames > MEMBERS:
                    raise BadRequest(
                        f"The body of your request has more than {MEMBERS} zstd frames."
                    )
                options = {self._zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
                self._frame = self._zstd.ZstdDecompressor(options=options)
            try:
                piece = self._frame.decompress(data, STEP)
            except self._zstd.ZstdError:
                raise _damaged("zstd") from None
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
            else:
                data, more = b"", not self._frame.needs_input
            yield piece


def _damaged(coding: str) -> BadRequest:
    return BadRequest(f"The body of your request is not {coding}, as its headers say, or damaged.")


def _cut(coding: str) -> BadRequest:
    return BadRequest(f"The body of your request ends before its {coding} does.")
