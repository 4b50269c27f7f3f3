"""The weights of a folder: in which files they are, and what the headers of these say of them."""

import json
import math
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open

from embedsvc.bounds import TENSOR_HEADER
from embedsvc.checkpoints.file_kinds import found_instead, kind_of
from embedsvc.checkpoints.files import Files
from embedsvc.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OLD_WEIGHTS = "weights.safetensors"
OLD_SHARDS = "weights.{:02}.safetensors"
"""The names that MLX's tools gave to weights before they took up the common one: to all, or to
shards, counted from 0 and without an index."""
TORCH_WEIGHTS = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
"""The names of torch's own files, which are read where there are no others."""

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "U32": "<u4",
    "U8": "<u1",
}
"""Types of safetensors, and NumPy's names for them. Bfloat16, which NumPy lacks, is read as the
upper half of a float32."""
DIMENSIONS = 8
"""The most that a tensor may have."""
LARGEST = 1 << 48
"""The product of a tensor's sizes, but for those that are 0, is less. NumPy has a bound for arrays
without numbers too."""


class Entry(NamedTuple):
    """Where a tensor lies in which file."""

    file: Path
    stored: str  # its name in the file
    dtype: str  # a key of DTYPES
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file
    strides: tuple[int, ...] | None = None
    """How many numbers apart those of each dimension lie; None if they follow each other."""

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of each of its numbers."""
        return np.dtype(DTYPES[self.dtype]).itemsize

    @property
    def span(self) -> int:
        """How many numbers there are in the file from its first to its last."""
        if self.strides is None:
            return math.prod(self.shape)
        return 1 + sum(
            (size - 1) * step for size, step in zip(self.shape, self.strides, strict=True)
        )

    def row(self, index: int) -> "Entry":
        """One row of it, as a tensor that has no more."""
        shape = (1, *self.shape[1:])
        step = math.prod(shape) if self.strides is None else self.strides[0]
        offset = self.offset + index * step * self.itemsize
        return self._replace(shape=shape, offset=offset)


def weight_files(model: str, folder: Path) -> list[Path]:
    """The files of a folder that have its weights: one, or the shards that its index lists or MLX's
    tools once counted. Those of torch only where there are no safetensors."""
    files = Files(model, folder)
    for name in (WEIGHTS, OLD_WEIGHTS):
        if files.has(name):
            return [folder / name]
    if files.has(INDEX):
        return _shards(files, INDEX)
    if old := list(takewhile(files.has, map(OLD_SHARDS.format, range(100)))):
        return [folder / name for name in old]
    if files.has(TORCH_WEIGHTS):
        return [folder / TORCH_WEIGHTS]
    if files.has(TORCH_INDEX):
        return _shards(files, TORCH_INDEX)
    raise CheckpointError(f"model `{model}`: {folder}: {WEIGHTS} is missing{found_instead(folder)}")


def _shards(files: Files, index: str) -> list[Path]:
    listed = files.read_as(index, _Index)
    named = listed.weight_map.values() if listed else ()
    shards = {Path(name).name for name in named}
    if not shards:
        raise files.error(index, "lists no shard")
    return [files.folder / name for name in sorted(shards)]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def read_entries(model: str, file: Path) -> list[Entry]:
    """The tensors of a safetensors file. Raises `CheckpointError` if it is damaged, or is none.

    The header is read twice: by the library, which checks that the tensors lie in the file, one
    behind the other and as long as their shapes say, and here, since the library gives no offsets.
    """
    files = Files(model, file.parent)
    with files.open(file.name) as stream:
        beginning = stream.read(100)
        length = int.from_bytes(beginning[:8], "little")
        if not 2 <= length <= TENSOR_HEADER:
            problem = f"is no safetensors file, or has a header of {length} bytes"
            raise files.error(file.name, kind_of(beginning) or problem)
        stream.seek(8)
        content = stream.read(length)
    try:
        with safe_open(file, framework="numpy"):
            pass
        header: dict[str, Any] = json.loads(content, object_pairs_hook=_unique)
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as error:
        raise files.error(file.name, f"{error}; it may be cut off: download it again") from None
    header.pop("__metadata__", None)
    entries: list[Entry] = []
    for raw, about in header.items():
        kind, shape = about["dtype"], about["shape"]
        if kind not in DTYPES or not is_possible(shape):
            raise files.error(file.name, f"tensor `{raw}` holds {kind} in shape {shape[:9]}")
        offset = 8 + length + about["data_offsets"][0]
        entries.append(Entry(file, raw, kind, tuple(shape), offset))
    return entries


def is_possible(shape: Sequence[int]) -> bool:
    """Whether a tensor may have that shape.

    >>> is_possible((0, 3)), is_possible((0, 1 << 60)), is_possible([1] * 9)
    (True, False, False)
    """
    return len(shape) <= DIMENSIONS and math.prod(size or 1 for size in shape) < LARGEST


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises `ValueError` if a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found
