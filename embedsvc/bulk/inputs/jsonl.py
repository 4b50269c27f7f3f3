"""JSON Lines: an object on each line."""

import codecs
from collections.abc import Collection, Generator, Iterator
from typing import Any

import msgspec

from embedsvc.bulk.inputs.lines import TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import BadRow, Columns, InputRow, missing_column, to_json
from embedsvc.errors import BulkError

CHECKED_ROWS = 1000
"""In so many rows at the beginning each column has to be there once."""
CHECKED_BYTES = 16 << 20
"""The most bytes that the lines of these rows have."""
DEEPEST = 200
"""How deep lists and objects may be nested."""


def read(source: Source, columns: Columns) -> Generator[InputRow]:
    """A row for each object. Blank lines are skipped.

    Raises `BulkError` if a column is in none of the first objects.
    """

    def item(number: int, line: bytes | None) -> tuple[InputRow, Collection[str]]:
        record = _object(source, number, line)
        if isinstance(record, BadRow):
            return record, ()
        return columns.row(source.name, number, record, source.row_id(number)), record

    lines = ((number, line) for number, line in lines_of(source) if not _blank(line))
    yield from with_columns_checked(source, columns, ((line, *item(n, line)) for n, line in lines))


ReadRow = tuple[bytes | None, InputRow, Collection[str]]
"""A line, the row on it, and the names of the columns that it has."""


def with_columns_checked(
    source: Source, columns: Columns, rows: Iterator[ReadRow]
) -> Iterator[InputRow]:
    """The same rows. The first ones are held back until each column was seen once.

    Raises `BulkError` if a column is in none of the first objects.
    """
    lacking = list(columns.names)
    held: list[InputRow] = []
    size = 0
    there: Collection[str] = ()
    for line, item, names in rows:
        held.append(item)
        size += len(line or b"")
        lacking = [name for name in lacking if name not in names]
        there = there or names
        if not lacking or len(held) >= CHECKED_ROWS or size >= CHECKED_BYTES:
            break
    if lacking and there:
        raise BulkError(f"{source.name}: {missing_column(lacking[0], there)}")
    yield from held
    for _, item, _ in rows:
        yield item


def parsed(line: bytes) -> dict[str, Any]:
    """The JSON object on a line. Raises `ValueError`, which says why there is none."""
    try:
        record: Any = msgspec.json.decode(line)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    if line.count(b"[") + line.count(b"{") > DEEPEST and _too_deep(record):
        raise ValueError(f"not JSON: lists and objects {DEEPEST} deep or more")
    return record  # type: ignore[return-value]


def _blank(line: bytes | None) -> bool:
    return line is not None and line.isspace()


def _object(source: Source, number: int, line: bytes | None) -> dict[str, Any] | BadRow:
    identity = to_json(source.row_id(number))
    if line is None:
        return BadRow(source.name, number, TOO_LONG, b"null", identity)
    try:
        # A byte-order mark may begin any line: files may have been put one after the other.
        return parsed(line.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        shown = to_json(line.decode(errors="backslashreplace").rstrip())
        return BadRow(source.name, number, str(error), shown, identity)


def _too_deep(record: Any) -> bool:
    level = [record]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
    return bool(level)
