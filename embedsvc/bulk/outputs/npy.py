"""NumPy's .npy, which has the vectors alone. Their rows are the lines of out.npy.rows.jsonl."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from embedsvc.bulk.manifest import Manifest
from embedsvc.bulk.outputs.files import beside, read_manifest, replacing, write_manifest
from embedsvc.bulk.outputs.jsonl import pick
from embedsvc.bulk.rows import to_json
from embedsvc.errors import BulkError

ROWS = 4096
"""How many vectors are read at a time."""


class _Block(msgspec.Struct, array_like=True):
    lines: bytes
    vectors: bytes


def encode(rows: Sequence[dict[str, Any]], vectors: NDArray[Any]) -> bytes:
    """The lines of some rows, and their vectors."""
    lines = b"".join(to_json(row) + b"\n" for row in rows)
    return msgspec.msgpack.encode(_Block(lines, vectors.tobytes()))


def write(path: Path, blocks: Callable[[], Iterable[bytes]], manifest: Manifest) -> None:
    """Write all vectors, one after the other, and all lines."""
    like = manifest.no_vectors
    shape = (manifest.rows, like.shape[1])
    header = {"descr": like.dtype.str, "fortran_order": False, "shape": shape}
    write_manifest(path, manifest)
    with replacing(beside(path, "rows.jsonl")) as lines, replacing(path) as vectors:
        npy_format.write_array_header_1_0(vectors, header)
        for encoded in blocks():
            block = msgspec.msgpack.decode(encoded, type=_Block)
            lines.write(block.lines)
            vectors.write(block.vectors)


class NpyIndex:
    """See `Index`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)

    def blocks(self) -> Iterator[NDArray[Any]]:
        try:
            with self.path.open("rb") as file:
                rows, width, dtype = self._header(file)
                for first in range(0, rows, ROWS):
                    count = min(ROWS, rows - first) * width
                    yield np.fromfile(file, dtype, count).reshape(-1, width)
        except OSError as error:
            raise BulkError(f"{self.path}: {error.strerror or error}") from None
        except (ValueError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
            message = str(error).partition("\n")[0][:300]  # NumPy quotes the whole header
            raise BulkError(f"{self.path}: is damaged: {message}") from None

    def _header(self, file: BinaryIO) -> tuple[int, int, np.dtype[Any]]:
        """Read rows, width and type. Raises `ValueError` if the manifest says otherwise."""
        like = self.manifest.no_vectors
        if npy_format.read_magic(file) != (1, 0):
            raise ValueError("another version of .npy")
        shape, fortran, dtype = npy_format.read_array_header_1_0(file)
        if fortran or dtype != like.dtype or shape != (self.manifest.rows, like.shape[1]):
            raise ValueError(f"{dtype} of shape {shape}, and its .about.json says otherwise")
        rows, width = self.manifest.rows, like.shape[1]
        there = os.fstat(file.fileno()).st_size - file.tell()
        if there != rows * width * dtype.itemsize:
            raise ValueError(f"{there:,} bytes of vectors, not what its header says")
        return rows, width, dtype

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return pick(beside(self.path, "rows.jsonl"), numbers)
