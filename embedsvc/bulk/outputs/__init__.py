"""The formats of an output, which is written and read again: a module for each."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedsvc.bulk.arrow import arrow
from embedsvc.bulk.manifest import Manifest
from embedsvc.bulk.outputs import jsonl, npy, parquet
from embedsvc.bulk.outputs.index import Index
from embedsvc.errors import BulkError


class Output(NamedTuple):
    """One format."""

    encode: Callable[[Sequence[dict[str, Any]], Any], bytes]
    """Encode some rows with their `Vectors`, for the journal."""
    write: Callable[[Path, Callable[[], Iterable[bytes]], Manifest], None]
    """Write the file from all encoded rows. The function that gives them may be called twice."""
    open: Callable[[Path], Index]
    """Open the file to read it. Raises `BulkError`."""


OUTPUTS = {
    ".parquet": Output(parquet.encode, parquet.write, parquet.ParquetIndex),
    ".jsonl": Output(jsonl.encode, jsonl.write, jsonl.JsonlIndex),
    ".npy": Output(npy.encode, npy.write, npy.NpyIndex),
}


def output_for(path: Path) -> Output:
    """The format of a file of this name. Raises `BulkError`, also if an extra is missing for it."""
    ending = path.suffix.lower()
    if ending not in OUTPUTS:
        raise BulkError(f"{path}: an output's name ends in {', '.join(OUTPUTS)}")
    if ending == ".parquet":
        arrow()
    return OUTPUTS[ending]
