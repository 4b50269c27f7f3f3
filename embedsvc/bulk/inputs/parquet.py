"""Parquet: rows in their order, with values in Arrow's types."""

from collections.abc import Generator, Iterator
from typing import Any

from embedsvc.bulk.arrow import arrow, in_short, json_form, open_parquet, read_batches
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Columns, InputRow, missing_column
from embedsvc.errors import BulkError

ROWS = 256
"""How many rows are decoded at a time."""
DEEPEST = 100
"""How deep lists and structs may be nested."""


def read(source: Source, columns: Columns) -> Generator[InputRow]:
    """The rows, numbered from 1. Values of columns that are carried along are scalars of pyarrow's.

    Raises `BulkError` if the columns are not there, or if the file is damaged.
    """
    if source.path is None:
        raise BulkError("Parquet cannot be piped in: name the file")
    with open_parquet(source.path) as file:
        _check(source, file.schema_arrow, columns)
        total = max(file.metadata.num_rows, 1)
        number = 0
        source.bytes_read = lambda: (source.bytes or 0) * number // total
        try:
            for batch in read_batches(file, ROWS, columns.names):
                for record in _records(batch, columns):
                    number += 1
                    yield columns.row(source.name, number, record, source.row_id(number))
        except (OSError, arrow().ArrowException) as error:
            raise BulkError(f"{source.name}: after row {number}: {in_short(error)}") from None


def _check(source: Source, schema: Any, columns: Columns) -> None:
    names: list[str] = schema.names
    for name in columns.names:
        if name not in names:
            raise BulkError(f"{source.name}: {missing_column(name, names)}")
        if names.count(name) > 1:
            raise BulkError(f"{source.name}: two columns are called `{name}`")
        level = [schema.field(name).type]
        for _ in range(DEEPEST):
            level = [kind.field(i).type for kind in level for i in range(kind.num_fields)]
        if level:
            raise BulkError(f"{source.name}: column `{name}`: types {DEEPEST} deep or more")


def _records(batch: Any, columns: Columns) -> Iterator[dict[str, Any]]:
    values = {name: batch.column(name) for name in columns.names}
    texts = _texts(values.pop(columns.text))
    for index, text in enumerate(texts):
        yield {columns.text: text} | {name: values[name][index] for name in values}


def _texts(column: Any) -> list[Any]:
    """Python strings. Other values become what the reason of a bad row is to show."""
    types = arrow(".types")
    if types.is_string(column.type) or types.is_large_string(column.type):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:  # a string of Parquet's may have any bytes
            pass
    return [_text(value) for value in column]


def _text(value: Any) -> Any:
    if not value.is_valid:
        return None
    if isinstance(value.type, arrow().BaseExtensionType) or hasattr(value, "dictionary"):
        return _text(value.value)
    if hasattr(value, "as_buffer"):
        try:
            return value.as_py()
        except UnicodeDecodeError:
            return value.as_buffer().to_pybytes()
    form = json_form(value)
    return value if isinstance(form, str) else form
