"""NumPy's .npy, the vectors alone; their rows are in out.npy.rows.jsonl, a line for each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from embedsvc.bulk.about import About
from embedsvc.bulk.dtypes import store
from embedsvc.bulk.outputs.files import beside, read_about, replacing, write_about
from embedsvc.bulk.outputs.jsonl import pick
from embedsvc.bulk.rows import to_json
from embedsvc.errors import BulkError

ROWS = 4096
"""Read back at a time."""


class _Block(msgspec.Struct, array_like=True):
    lines: bytes
    vectors: bytes


def encode(rows: Sequence[dict[str, Any]], vectors: NDArray[Any]) -> bytes:
    """The rows' lines and their vectors."""
    lines = b"".join(to_json(row) + b"\n" for row in rows)
    return msgspec.msgpack.encode(_Block(lines, vectors.tobytes()))


def finish(path: Path, blocks: Callable[[], Iterable[bytes]], about: About) -> None:
    """Put the vectors one after the other, and the lines."""
    like = store(np.empty((0, about.dimensions), np.float32), about.dtype)
    shape = (about.rows, like.shape[1])
    header = {"descr": like.dtype.str, "fortran_order": False, "shape": shape}
    write_about(path, about)
    with replacing(beside(path, "rows.jsonl")) as lines, replacing(path) as vectors:
        npy_format.write_array_header_1_0(vectors, header)
        for encoded in blocks():
            block = msgspec.msgpack.decode(encoded, type=_Block)
            lines.write(block.lines)
            vectors.write(block.vectors)


class NpyIndex:
    """See `Index`."""

    def __init__(self, path: Path) -> None:
        self.about = read_about(path)
        self._path = path

    def blocks(self) -> Iterator[NDArray[Any]]:
        with self._path.open("rb") as file:
            try:
                npy_format.read_magic(file)
                (rows, width), _, dtype = npy_format.read_array_header_1_0(file)
            except ValueError as error:
                raise BulkError(f"{self._path}: {error}") from None
            for first in range(0, rows, ROWS):
                count = min(ROWS, rows - first) * width
                yield np.fromfile(file, dtype, count).reshape(-1, width)

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return pick(beside(self._path, "rows.jsonl"), numbers)
