"""Plain text, a row on each line; and the lines of the other formats that have lines."""

from collections.abc import Generator, Iterator

from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import BadRow, Columns, InputRow, Row, to_json
from embedsvc.errors import BulkError
from embedsvc.system.text_files import NUL
from embedsvc.system.text_files import lines_of as lines_in

MAX_LINE_BYTES = 16 << 20
"""A longer line is a bad row, so that no line takes up the memory."""
TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB"


def read(source: Source, columns: Columns) -> Generator[InputRow]:
    """Rows whose id is the number of their line. Blank lines are skipped."""
    refuse_columns(source, columns)
    for number, line in lines_of(source):
        if line is None:
            yield BadRow(source.name, number, TOO_LONG, b"null", to_json(source.row_id(number)))
            continue
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            yield not_utf8(source, number, line)
            continue
        if "\0" in text:
            yield BadRow(source.name, number, NUL, to_json(text), to_json(source.row_id(number)))
        elif text.strip():
            yield Row(source.name, number, source.row_id(number), text, {})


def lines_of(source: Source) -> Iterator[tuple[int, bytes | None]]:
    """The number and the bytes of each line; None in place of the bytes if it is too long."""
    with source.open() as stream:
        yield from enumerate(lines_in(stream, MAX_LINE_BYTES), 1)


def not_utf8(source: Source, number: int, line: bytes) -> BadRow:
    """The bad row for a line that is not text."""
    shown = to_json(line.decode(errors="backslashreplace"))
    return BadRow(source.name, number, "not UTF-8", shown, to_json(source.row_id(number)))


def refuse_columns(source: Source, columns: Columns) -> None:
    """Raises `BulkError` if columns are asked of an input that has none."""
    for name in columns.names:
        if name != Columns().text:
            raise BulkError(f"{source.name}: has no columns, and so no `{name}`")
