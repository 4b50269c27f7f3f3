"""The formats that rows are read from: a module for each, with `read(source, columns)`."""

from collections.abc import Callable, Generator

from embedsvc.bulk.inputs import delimited, folder, jsonl, lines, parquet, rejects
from embedsvc.bulk.inputs.source import Format, Source
from embedsvc.bulk.rows import Columns, InputRow

READERS: dict[Format, Callable[[Source, Columns], Generator[InputRow]]] = {
    "jsonl": jsonl.read,
    "csv": delimited.read,
    "tsv": delimited.read,
    "parquet": parquet.read,
    "lines": lines.read,
    "rejects": rejects.read,
    "folder": folder.read,
}
