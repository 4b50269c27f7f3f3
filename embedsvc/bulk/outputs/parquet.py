"""Parquet: a column for each value of a row, and the column `embedding`, lists of one length, or
structs of indices and values.

The manifest is in the file's own metadata, under "embedsvc".
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from embedsvc.bulk.arrow import arrow, check_count, in_short, open_parquet, read_batches
from embedsvc.bulk.manifest import Manifest
from embedsvc.bulk.outputs.files import decode_manifest, replacing
from embedsvc.bulk.outputs.index import Vectors
from embedsvc.bulk.rows import to_json
from embedsvc.errors import BulkError

KEY = b"embedsvc"
GROUP_BYTES = 32 << 20
"""The size of a row group, which is in memory as a whole when it is written or read."""
ROWS = 4096
"""How many vectors are read at a time."""


def encode(rows: Sequence[dict[str, Any]], vectors: Vectors) -> bytes:
    """Some rows in Arrow's stream format, in the types that these rows need."""
    pa = arrow()
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
    if isinstance(vectors, list):
        columns["embedding"] = pa.array(vectors, _sparse_type())
    else:
        flat = pa.array(vectors.ravel())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def write(path: Path, blocks: Callable[[], Iterable[bytes]], manifest: Manifest) -> None:
    """Write all rows, in types that fit all of them. Raises `BulkError`."""
    try:
        _write(path, blocks, manifest)
    except arrow().ArrowException as error:
        raise BulkError(f"{path}: {in_short(error)}") from None


def _write(path: Path, blocks: Callable[[], Iterable[bytes]], manifest: Manifest) -> None:
    pa, parquet = arrow(), arrow(".parquet")
    schema = _schema(blocks(), manifest)
    others = [name for name in schema.names if name != "embedding"]  # vectors do not compress
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
        self.path = path
        with open_parquet(path) as file:
            written: dict[bytes, bytes] = file.schema_arrow.metadata or {}
            names: list[str] = file.schema_arrow.names
            self.manifest = decode_manifest(path, written.get(KEY))
            if len(set(names)) < len(names) or not {"id", "text", "embedding"} <= set(names):
                raise BulkError(f"{path}: is damaged: its columns are {', '.join(names)}")
            if file.schema_arrow.field("embedding").type != _type_of_vectors(self.manifest):
                raise BulkError(f"{path}: is damaged: its vectors are of another type")

    def blocks(self) -> Iterator[NDArray[Any]]:
        with open_parquet(self.path) as file:
            for batch in read_batches(file, ROWS, ["embedding"]):
                column = batch.column(0)
                flat = column.flatten()
                if column.null_count or flat.null_count:
                    raise BulkError(f"{self.path}: is damaged: vectors are missing")
                yield flat.to_numpy().reshape(len(column), -1)

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        with open_parquet(self.path) as file:
            names = [name for name in file.schema_arrow.names if name != "embedding"]
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = [number for number in numbers if first <= number < first + count]
                if here:
                    table = file.read_row_group(group, columns=names)
                    check_count(table.num_rows, count)
                    for number in here:
                        cells = table.slice(number - first, 1)
                        found[number] = {name: cells[name][0] for name in names}
                first += count
        return [found[number] for number in numbers]


def _type_of_vectors(manifest: Manifest) -> Any:
    """The type of the column of vectors."""
    pa = arrow()
    if manifest.options.type == "sparse":
        return _sparse_type()
    return pa.list_(pa.from_numpy_dtype(manifest.no_vectors.dtype), manifest.no_vectors.shape[1])


def _sparse_type() -> Any:
    """The type of a column of sparse vectors."""
    pa = arrow()
    return pa.struct({"indices": pa.list_(pa.int32()), "values": pa.list_(pa.float32())})


def _column(values: list[Any]) -> Any:
    """A column of values, in the type that they have in common, or as text if they have none."""
    pa = arrow()
    scalars = [value for value in values if isinstance(value, pa.Scalar)]
    if scalars:
        kind = _common({value.type for value in scalars})
        if all(value is None or isinstance(value, pa.Scalar) for value in values):
            return _of_scalars(values, kind)
        return pa.array([_text(value) for value in values], pa.string())
    # Objects and lists of JSON differ from row to row, so they stay JSON.
    values = [_text(value) if type(value) in (dict, list) else value for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([_text(value) for value in values], pa.string())


def _of_scalars(values: list[Any], kind: Any) -> Any:
    """A column of scalars in that type, also where `pa.array` would not accept them."""
    pa = arrow()
    null = pa.nulls(1, kind)
    column = pa.concat_arrays(
        [null if one is None else _in_type(pa.repeat(one, 1), kind) for one in values]
    )
    if pa.types.is_dictionary(kind):  # without the values that only other rows have
        column = column.dictionary_decode().dictionary_encode().cast(kind)
    return column


def _in_type(column: Any, kind: Any) -> Any:
    """The column in a type that `_common` found for its type and others."""
    pa = arrow()
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in column], kind)
    return column.cast(kind, safe=False)


def _text(value: Any) -> str | None:
    """A value as text: a string as it is, all else in JSON."""
    if value is None or isinstance(value, str):
        return value
    encoded = to_json(value)
    if encoded[:1] in (b'"', b"n"):  # a string, or null
        return msgspec.json.decode(encoded)
    return encoded.decode()


def _schema(blocks: Iterable[bytes], manifest: Manifest) -> Any:
    pa = arrow()
    types: dict[str, set[Any]] = {"id": set(), "text": set()}
    for block in blocks:
        for field in pa.ipc.open_stream(block).schema:
            types.setdefault(field.name, set()).add(field.type)
    types.setdefault("embedding", {_type_of_vectors(manifest)})
    fields = [(name, _common(found)) for name, found in types.items()]
    return pa.schema(fields, {KEY: msgspec.json.encode(manifest)})


def _common(types: set[Any]) -> Any:
    """A type that holds values of all these types; only the last digits of numbers may be lost."""
    pa = arrow()
    if len(types) > 1:
        types = types - {pa.null()}
    if len(types) == 1:
        return next(iter(types))
    for family in ("is_signed_integer", "is_unsigned_integer", "is_floating", "is_decimal"):
        if all(getattr(pa.types, family)(kind) for kind in types):
            return _unified(types)
    numbers = pa.types.is_signed_integer, pa.types.is_floating
    if all(any(is_one(kind) for is_one in numbers) for kind in types):
        return pa.float64() if types else pa.string()
    return pa.string()


def _unified(types: set[Any]) -> Any:
    pa = arrow()
    try:
        schemas = [pa.schema([("x", kind)]) for kind in types]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except (pa.ArrowException, ValueError):  # nothing in common
        return pa.string()


def _cast(batch: Any, schema: Any) -> Any:
    columns = [_in_type(batch.column(field.name), field.type) for field in schema]
    return arrow().record_batch(columns, schema=schema)
