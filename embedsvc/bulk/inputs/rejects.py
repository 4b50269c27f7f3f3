"""OUTPUT.rejects.jsonl, which has the rows that another run set aside, mended by hand.

Each line is a row. Rows keep the file, the line and the id that they had, so that a row that is
set aside again can be mended again. `row` is an object with the columns of the input that it came
from, or with those of the output, `id` and `text`.
"""

from collections.abc import Collection, Generator
from typing import Any

from embedsvc.bulk.inputs.jsonl import parsed, with_columns_checked
from embedsvc.bulk.inputs.lines import TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import BadRow, Columns, InputRow, to_json


def read(source: Source, columns: Columns) -> Generator[InputRow]:
    """The rows that were set aside. Blank lines are skipped.

    Raises `BulkError` if a column is in none of the first rows.
    """
    lines = ((n, line) for n, line in lines_of(source) if line is None or not line.isspace())
    rows = ((line, *_item(source, columns, n, line)) for n, line in lines)
    yield from with_columns_checked(source, columns, rows)


def _item(
    source: Source, columns: Columns, number: int, line: bytes | None
) -> tuple[InputRow, Collection[str]]:
    identity = to_json(source.row_id(number))
    if line is None:
        return BadRow(source.name, number, TOO_LONG, b"null", identity), ()
    try:
        rejected = parsed(line)
    except ValueError as error:
        shown = to_json(line.decode(errors="backslashreplace").rstrip())
        return BadRow(source.name, number, str(error), shown, identity), ()
    match rejected:
        case {"file": str(file), "line": int(first), "row": row}:
            pass
        case _:
            reason = "not what a run set aside"
            return BadRow(source.name, number, reason, to_json(rejected), identity), ()
    known = rejected.get("id", first)
    record = _record(row)
    if record is None:
        reason = "not mended: write `row` as an object"
        return BadRow(file, first, reason, to_json(row), to_json(known)), ()
    for column, own in ((columns.text, "text"), (columns.id, "id")):
        if column and column not in record and own in record:
            record = {column: record[own]} | record
    return columns.row(file, first, record, known), record


def _record(row: Any) -> dict[str, Any] | None:
    """The columns of a row, which may be an object, or a line that was mended into one."""
    if isinstance(row, str):
        try:
            return parsed(row.encode())
        except ValueError:
            return None
    return row if isinstance(row, dict) else None  # type: ignore[return-value]
