"""Reading text files that people write, however their editor saved them.

They may be UTF-8, with or without a byte order mark, or UTF-16 with one. Lines may end in LF, CRLF
or CR. Bytes that are no text are refused, with their line; no encoding is ever guessed.
"""

import codecs
import os
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path

from embedsvc.bounds import TEXT_FILE_BYTES
from embedsvc.errors import CardsError, SetupError

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",  # stands before the mark of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks, and the encodings that they stand for."""
NUL = "a NUL byte: not text, or UTF-16 without a byte order mark"
CHUNK_BYTES = 1 << 18
"""How many bytes are read at a time."""


class NotText(ValueError):
    """Raised for bytes that are no text. The message says what they are."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        """The number of the line, from 1."""


def read_text(file: Path, failure: type[SetupError] = CardsError) -> str:
    """The text of a small file, with LF at the end of each line.

    Raises `failure` that names the file and the line if it cannot be read, is longer than
    `TEXT_FILE_BYTES`, or is no text.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(TEXT_FILE_BYTES + 1)
        if len(content) > TEXT_FILE_BYTES:
            raise failure(f"{file}: longer than {TEXT_FILE_BYTES >> 20} MiB")
        text = decode(content)
    except OSError as error:
        raise failure(f"{file}: {error.strerror}") from None
    except NotText as error:
        raise failure(f"{file}, line {error.line}: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode(content: bytes) -> str:
    """The text of a whole file. The ends of its lines stay as they are. Raises `NotText`."""
    mark, encoding = _mark_of(content)
    content = content[len(mark) :]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding)
        reason = f"not {encoding[:6].upper().rstrip('-')} (byte 0x{content[error.start]:02x})"
        raise NotText(_lines_in(before), reason) from None
    if "\0" in text:
        raise NotText(_lines_in(text[: text.index("\0")]), NUL)
    return text


def printable(path: str | Path) -> str:
    """A path as text. Bytes that are not UTF-8 become escapes, as \\xff."""
    return os.fsencode(path).decode(errors="backslashreplace")


def lines_of(stream: BufferedIOBase, limit: int) -> Iterator[bytes | None]:
    """Each line of a long file, with its end, in UTF-8. A line above `limit` bytes comes as None.

    Lines are not checked: bytes that are not UTF-8 stay, and invalid UTF-16 becomes invalid UTF-8.
    Raises `NotText` if the file as a whole is in another encoding.
    """
    begun = bytearray()  # the beginning of a line that goes on in the next chunk
    size = 0
    for chunk in _between_lines(_as_utf8(stream)):
        for piece in chunk.splitlines(keepends=True):
            ends = piece.endswith((b"\n", b"\r"))
            if ends and not size:
                yield piece if len(piece) <= limit else None
                continue
            size += len(piece)
            if size <= limit:
                begun += piece
            if ends:
                yield bytes(begun) if size <= limit else None
                begun.clear()
                size = 0
    if size:
        yield bytes(begun) if size <= limit else None


def _mark_of(content: bytes) -> tuple[bytes, str]:
    """The byte order mark that a file begins with, and the encoding that it stands for."""
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    if encoding == "utf-32":
        raise NotText(1, "UTF-32: save it as UTF-8")
    return mark, encoding


def _as_utf8(stream: BufferedIOBase) -> Iterator[bytes]:
    """The bytes of a file, in UTF-8 and without a byte order mark."""
    head = b""
    while any(mark.startswith(head) and mark != head for mark in MARKS):
        more = stream.read1(CHUNK_BYTES)
        if not more:
            break
        head += more
    mark, encoding = _mark_of(head)
    chunk = head[len(mark) :]
    if encoding == "utf-8":
        yield chunk
        while chunk := stream.read1(CHUNK_BYTES):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    yield decoder.decode(chunk).encode(errors="surrogatepass")
    while chunk := stream.read1(CHUNK_BYTES):
        yield decoder.decode(chunk).encode(errors="surrogatepass")
    if decoder.getstate()[0]:  # half a character
        yield b"\xff"


def _between_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in other chunks, none of which ends between CR and LF.

    >>> list(_between_lines([b"a\\r", b"\\nb"]))
    [b'a', b'\\r\\nb', b'']
    """
    held = b""
    for chunk in chunks:
        chunk = held + chunk
        held = b"\r" if chunk.endswith(b"\r") else b""
        yield chunk.removesuffix(held)
    yield held


def _lines_in(text: str) -> int:
    """The number of the line on which the text ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
