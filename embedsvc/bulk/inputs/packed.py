"""Inputs that are compressed, unpacked while they are read."""

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
"""How the names and the contents of those begin that are read."""
ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz", ".txz", ".lz4", ".lzma", ".br", ".z")
"""Names of those that are not."""
DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading raises where an input is cut off or damaged."""
if sys.version_info >= (3, 14):
    from compression import zstd

    DAMAGED = (*DAMAGED, zstd.ZstdError)


def split_packing(name: str) -> tuple[str, str]:
    """A file's name without the ending of its packing, and that ending, which may be none.

    Raises `BulkError` if it is packed in another way.
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
    """What is in a stream whose name has that ending, or none. Raises `OSError`, `BulkError`."""
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
