"""JSON Lines: an object on each line."""

import codecs
from collections.abc import Collection, Generator, Iterator
from typing import Any

import msgspec

from embedsvc.bulk.inputs.lines import TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Bad, Columns, Item, missing_column, to_json
from embedsvc.errors import BulkError

UNSETTLED = 1000
"""Rows at the beginning that are held back until it is clear whether the columns are there."""
UNSETTLED_BYTES = 16 << 20
"""Of their lines."""
DEEPEST = 200
"""Lists and objects in each other."""


def read(source: Source, columns: Columns) -> Generator[Item]:
    """Rows of the objects. Blank lines are passed over.

    Raises `BulkError` if a column is in none of the first objects.
    """

    def item(number: int, line: bytes | None) -> tuple[Item, Collection[str]]:
        record = _object(source, number, line)
        if isinstance(record, Bad):
            return record, ()
        return columns.row(source.name, number, record, source.number(number)), record

    lines = ((number, line) for number, line in lines_of(source) if not _blank(line))
    yield from settled(source, columns, ((line, *item(n, line)) for n, line in lines))


Read = tuple[bytes | None, Item, Collection[str]]
"""A line, the row it is, and the columns it has."""


def settled(source: Source, columns: Columns, rows: Iterator[Read]) -> Iterator[Item]:
    """The rows, once it is clear whether the columns are there.

    Raises `BulkError` if one is in none of the first objects.
    """
    lacking = list(columns.names)
    held: list[Item] = []
    size = 0
    there: Collection[str] = ()
    for line, item, names in rows:
        held.append(item)
        size += len(line or b"")
        lacking = [name for name in lacking if name not in names]
        there = there or names
        if not lacking or len(held) >= UNSETTLED or size >= UNSETTLED_BYTES:
            break
    if lacking and there:
        raise BulkError(f"{source.name}: {missing_column(lacking[0], there)}")
    yield from held
    for _, item, _ in rows:
        yield item


def parsed(line: bytes) -> dict[str, Any]:
    """The object on a line. Raises `ValueError` that says why there is none."""
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


def _object(source: Source, number: int, line: bytes | None) -> dict[str, Any] | Bad:
    identity = to_json(source.number(number))
    if line is None:
        return Bad(source.name, number, TOO_LONG, b"null", identity)
    try:
        return parsed(line.removeprefix(codecs.BOM_UTF8))  # of files put one after the other
    except ValueError as error:
        told = to_json(line.decode(errors="backslashreplace").rstrip())
        return Bad(source.name, number, str(error), told, identity)


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
