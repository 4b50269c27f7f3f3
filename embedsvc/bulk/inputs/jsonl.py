"""JSON Lines: an object on each line."""

from collections.abc import Iterator
from typing import Any

import msgspec

from embedsvc.bulk.inputs.lines import TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import NO_COLUMN, Bad, Columns, Item, Row, to_json
from embedsvc.errors import BulkError

UNSETTLED = 100
"""Bad rows at the beginning that are held back until it is clear whether the columns are there."""


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """Rows of the objects. Blank lines are passed over.

    Raises `BulkError` if the columns are in none of the first objects.
    """
    held: list[Bad] | None = []
    for number, line in lines_of(source):
        if line is not None and line.isspace():
            continue
        item = _item(source, columns, number, line)
        if held is None:
            yield item
        elif isinstance(item, Bad) and len(held) < UNSETTLED:
            held.append(item)
        else:
            yield from _settled(held, item)
            held = None
            yield item
    yield from _settled(held or [], None)


def _settled(held: list[Bad], after: Item | None) -> list[Bad]:
    lacking = [bad for bad in held if bad.reason.startswith(NO_COLUMN)]
    if lacking and not isinstance(after, Row):
        raise BulkError(f"{lacking[0].file}:{lacking[0].line}: {lacking[0].reason}")
    return held


def _item(source: Source, columns: Columns, number: int, line: bytes | None) -> Item:
    record = _object(source, number, line)
    if isinstance(record, Bad):
        return record
    return columns.row(source.name, number, record, source.number(number))


def _object(source: Source, number: int, line: bytes | None) -> dict[str, Any] | Bad:
    if line is None:
        return Bad(source.name, number, TOO_LONG, b"null")
    try:
        record: Any = msgspec.json.decode(line)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except (msgspec.MsgspecError, RecursionError) as error:
        reason = f"not JSON: {error}"
    else:
        if isinstance(record, dict):
            return record  # type: ignore[return-value]
        reason = "not a JSON object"
    return Bad(source.name, number, reason, to_json(line.decode(errors="replace").rstrip()))
