"""Compressed inputs, which are decompressed while they are read."""

import bz2
import gzip
import io
import lzma
import sys
import zlib
from typing import Any, cast

from embedsvc.bulk.arrow import arrow
from embedsvc.errors import BulkError

PACKED = {
    ".gz": b"\x1f\x8b\x08",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\0",
    ".zst": b"\x28\xb5\x2f\xfd",
}
"""The compressions that are read: how names end, and how the contents begin."""
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz", ".txz", ".lz4", ".lzma", ".br", ".z")
"""How the names of files end that are not read."""
DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What is raised when a compressed input is read that is cut off or damaged."""
if sys.version_info >= (3, 14):
    from compression import zstd

    DAMAGED = (*DAMAGED, zstd.ZstdError)


def split_packing(name: str) -> tuple[str, str]:
    """A file's name without the ending of its compression, and that ending.

    Raises `BulkError` if it is packed in a way that is not read.

    >>> split_packing("in.jsonl.gz"), split_packing("in.csv")
    (('in.jsonl', '.gz'), ('in.csv', ''))
    """
    lower = name.lower()
    for ending in PACKED:
        if lower.endswith(ending):
            name, packing = name[: -len(ending)], ending
            break
    else:
        packing = ""
    if name.lower().endswith(ARCHIVES):
        raise BulkError(
            f"{name}{packing}: unpack it first; {', '.join(PACKED)} are read as they are"
        )
    return name, packing


def unpacked(stream: "io.BufferedReader[Any]", packing: str) -> io.BufferedIOBase:
    """The decompressed stream. `packing` is the ending that its name has, "" for none.

    Raises `OSError`, `BulkError`.
    """
    head = stream.peek(8)[:8]
    found = next((ending for ending, begin in PACKED.items() if head.startswith(begin)), "")
    if packing and found != packing:
        raise OSError(f"is not what its name says: it does not begin as {packing} does")
    match found:
        case ".gz":
            return gzip.GzipFile(fileobj=stream)
        case ".bz2" if packing or head[3:4].isdigit():  # a text may begin with "BZh" too
            return bz2.BZ2File(stream)
        case ".xz":
            return lzma.LZMAFile(stream)
        case ".zst":
            return _zstd(stream)
        case _:
            return stream


def _zstd(stream: "io.BufferedReader[Any]") -> io.BufferedIOBase:
    if sys.version_info >= (3, 14):
        return zstd.ZstdFile(stream)
    try:
        unpacked: Any = arrow().CompressedInputStream(stream, "zstd")
    except BulkError:
        message = "zstd needs Python 3.14 or pyarrow: pip install 'embedsvc[parquet]'"
        raise BulkError(message) from None
    return io.BufferedReader(cast(io.RawIOBase, unpacked), 1 << 18)
