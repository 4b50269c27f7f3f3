"""What another run set aside, in its OUTPUT.rejects.jsonl, mended by hand: a row on each line.

Rows keep the file, the line and the id they had, so that what is set aside again can be mended
again. `row` is an object: with the columns of the input that it came from, or with those of the
output, `id` and `text`.
"""

from collections.abc import Collection, Generator
from typing import Any

from embedsvc.bulk.inputs.jsonl import parsed, settled
from embedsvc.bulk.inputs.lines import TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Bad, Columns, Item, to_json


def read(source: Source, columns: Columns) -> Generator[Item]:
    """Rows of what was set aside. Blank lines are passed over.

    Raises `BulkError` if a column is in none of the first rows.
    """
    lines = ((n, line) for n, line in lines_of(source) if line is None or not line.isspace())
    rows = ((line, *_item(source, columns, n, line)) for n, line in lines)
    yield from settled(source, columns, rows)


def _item(
    source: Source, columns: Columns, number: int, line: bytes | None
) -> tuple[Item, Collection[str]]:
    identity = to_json(source.number(number))
    if line is None:
        return Bad(source.name, number, TOO_LONG, b"null", identity), ()
    try:
        told = parsed(line)
    except ValueError as error:
        shown = to_json(line.decode(errors="backslashreplace").rstrip())
        return Bad(source.name, number, str(error), shown, identity), ()
    match told:
        case {"file": str(file), "line": int(first), "row": row}:
            pass
        case _:
            return Bad(source.name, number, "not what a run set aside", to_json(told), identity), ()
    known = told.get("id", first)
    record = _record(row)
    if record is None:
        reason = "not mended: write `row` as an object"
        return Bad(file, first, reason, to_json(row), to_json(known)), ()
    for wanted, own in ((columns.text, "text"), (columns.id, "id")):
        if wanted and wanted not in record and own in record:
            record = {wanted: record[own]} | record
    return columns.row(file, first, record, known), record


def _record(row: Any) -> dict[str, Any] | None:
    """The columns of a row, which may be an object, or a line that was mended into one."""
    if isinstance(row, str):
        try:
            return parsed(row.encode())
        except ValueError:
            return None
    return row if isinstance(row, dict) else None  # type: ignore[return-value]
