"""Parquet: rows as they are, values in their types."""

from collections.abc import Iterator
from typing import Any

from embedsvc.bulk.arrow import arrow, open_parquet
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Columns, Item
from embedsvc.errors import BulkError

ROWS = 256
"""Decoded at a time."""


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """Rows with their number, from 1, for a line. Values that are carried along are pyarrow's.

    Raises `BulkError` if the columns are not there, or the file is broken.
    """
    if source.path is None:
        raise BulkError("Parquet cannot be piped in: name the file")
    with open_parquet(source.name) as file:
        names: list[str] = file.schema_arrow.names
        for name in columns.names:
            if name not in names:
                raise BulkError(f"{source.name}: no column `{name}`; there are: {', '.join(names)}")
        total = max(file.metadata.num_rows, 1)
        number = 0
        source.read = lambda: (source.bytes or 0) * number // total
        try:
            for batch in file.iter_batches(batch_size=ROWS, columns=columns.names):
                for record in _records(batch, columns):
                    number += 1
                    yield columns.row(source.name, number, record, source.number(number))
        except (OSError, arrow().ArrowException) as error:
            raise BulkError(f"{source.name}: after row {number}: {error}") from None


def _records(batch: Any, columns: Columns) -> Iterator[dict[str, Any]]:
    values: dict[str, Any] = {}
    for name in columns.names:
        column = batch.column(name)
        if arrow().types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values[name] = column
    texts = values.pop(columns.text).to_pylist()
    for index, text in enumerate(texts):
        yield {columns.text: text} | {name: values[name][index] for name in values}
