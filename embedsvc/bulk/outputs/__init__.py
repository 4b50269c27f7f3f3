"""What rows are written to, and read from again: a module for each format."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from embedsvc.bulk.arrow import arrow
from embedsvc.bulk.manifest import About
from embedsvc.bulk.outputs import jsonl, npy, parquet
from embedsvc.bulk.outputs.index import Index
from embedsvc.errors import BulkError


class Output(NamedTuple):
    """One format."""

    encode: Callable[[Sequence[dict[str, Any]], NDArray[Any]], bytes]
    """Some rows with their vectors (n, D), for the partial output."""
    finish: Callable[[Path, Callable[[], Iterable[bytes]], About], None]
    """Write the file from all that was encoded, which may be asked for twice."""
    open: Callable[[Path], Index]
    """Read the file. Raises `BulkError`."""


OUTPUTS = {
    ".parquet": Output(parquet.encode, parquet.finish, parquet.ParquetIndex),
    ".jsonl": Output(jsonl.encode, jsonl.finish, jsonl.JsonlIndex),
    ".npy": Output(npy.encode, npy.finish, npy.NpyIndex),
}


def output_for(path: Path) -> Output:
    """The format that a file's name tells. Raises `BulkError`, also if it needs an extra."""
    ending = path.suffix.lower()
    if ending not in OUTPUTS:
        raise BulkError(f"{path}: an output's name ends in {', '.join(OUTPUTS)}")
    if ending == ".parquet":
        arrow()
    return OUTPUTS[ending]
