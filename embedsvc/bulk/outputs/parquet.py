"""Parquet: a column for each of a row's values, and `embedding`, lists of one length.

What made it is in the file's own metadata, under "embedsvc".
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.about import About
from embedsvc.bulk.arrow import arrow, open_parquet
from embedsvc.bulk.dtypes import store
from embedsvc.bulk.outputs.files import decode_about, replacing
from embedsvc.bulk.rows import plain, to_json

KEY = b"embedsvc"
GROUP_BYTES = 32 << 20
"""Of a row group: what is in memory at a time, when it is written and when it is read."""
ROWS = 4096
"""Vectors read back at a time."""


def encode(rows: Sequence[dict[str, Any]], vectors: NDArray[Any]) -> bytes:
    """The rows in Arrow's format, in the types that these rows need."""
    pa = arrow()
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
    flat = pa.array(vectors.ravel())
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def finish(path: Path, blocks: Callable[[], Iterable[bytes]], about: About) -> None:
    """Put the rows together, in types that fit all of them."""
    pa, parquet = arrow(), arrow(".parquet")
    schema = _schema(blocks(), about)
    others = [name for name in schema.names if name != "embedding"]  # vectors do not get smaller
    compression = dict.fromkeys(others, "zstd") | {"embedding": "none"}
    with (
        replacing(path) as file,
        parquet.ParquetWriter(
            file, schema, compression=compression, use_dictionary=others
        ) as writer,
    ):
        group: list[Any] = []
        for block in blocks():
            group += [_cast(batch, schema) for batch in pa.ipc.open_stream(block)]
            if sum(batch.nbytes for batch in group) >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group))


class ParquetIndex:
    """See `Index`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_parquet(str(path)) as file:
            written: dict[bytes, bytes] = file.schema_arrow.metadata or {}
        self.about = decode_about(path, written.get(KEY))

    def blocks(self) -> Iterator[NDArray[Any]]:
        with open_parquet(str(self._path)) as file:
            for batch in file.iter_batches(batch_size=ROWS, columns=["embedding"]):
                column = batch.column(0)
                flat = column.flatten().to_numpy()
                yield flat.reshape(len(column), -1)

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        with open_parquet(str(self._path)) as file:
            names = [name for name in file.schema_arrow.names if name != "embedding"]
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = [number for number in numbers if first <= number < first + count]
                if here:
                    table = file.read_row_group(group, columns=names)
                    for number in here:
                        cells = table.slice(number - first, 1)
                        found[number] = {name: cells[name][0] for name in names}
                first += count
        return [found[number] for number in numbers]


def _column(values: list[Any]) -> Any:
    """Values in the type they have in common; as text, if they have none."""
    pa = arrow()
    # JSON's objects and lists differ from row to row, so they stay JSON.
    values = [_text(value) if type(value) in (dict, list) else value for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([_text(value) for value in values])


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else to_json(value).decode()


def _schema(blocks: Iterable[bytes], about: About) -> Any:
    pa = arrow()
    types: dict[str, set[Any]] = {"id": set(), "text": set()}
    for block in blocks:
        for field in pa.ipc.open_stream(block).schema:
            types.setdefault(field.name, set()).add(field.type)
    empty = store(np.empty((0, about.dimensions), np.float32), about.dtype)
    types.setdefault("embedding", {pa.list_(pa.from_numpy_dtype(empty.dtype), empty.shape[1])})
    fields = [(name, _common(found)) for name, found in types.items()]
    return pa.schema(fields, {KEY: msgspec.json.encode(about)})


def _common(types: set[Any]) -> Any:
    """The type that values of these types go into."""
    pa = arrow()
    types = types - {pa.null()}
    try:
        schemas = [pa.schema([("x", kind)]) for kind in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except (pa.ArrowException, ValueError):  # nothing in common, or nothing
        return pa.string()


def _cast(batch: Any, schema: Any) -> Any:
    pa = arrow()
    columns: list[Any] = []
    for field in schema:
        column = batch.column(field.name)
        if column.type == field.type:
            pass
        elif pa.types.is_string(field.type) and not pa.types.is_null(column.type):
            column = pa.array([_text(plain(value)) for value in column], field.type)
        else:
            column = column.cast(field.type, safe=False)
        columns.append(column)
    return pa.record_batch(columns, schema=schema)
