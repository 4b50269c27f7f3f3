"""Text, a row on each line. Also the lines of formats that have some."""

from collections.abc import Generator, Iterator

from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Bad, Columns, Item, Row, to_json
from embedsvc.errors import BulkError
from embedsvc.system.text_files import NUL
from embedsvc.system.text_files import lines_of as lines_in

MAX_LINE_BYTES = 16 << 20
"""A longer line is a bad row, so that no line takes up the memory."""
TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB"


def read(source: Source, columns: Columns) -> Generator[Item]:
    """Rows with their number as id. Blank lines are passed over."""
    refuse_columns(source, columns)
    for number, line in lines_of(source):
        if line is None:
            yield Bad(source.name, number, TOO_LONG, b"null", to_json(source.number(number)))
            continue
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            yield not_utf8(source, number, line)
            continue
        if "\0" in text:
            yield Bad(source.name, number, NUL, to_json(text), to_json(source.number(number)))
        elif text.strip():
            yield Row(source.name, number, source.number(number), text, {})


def lines_of(source: Source) -> Iterator[tuple[int, bytes | None]]:
    """The number and the bytes of each line; no bytes if it is too long."""
    with source.open() as stream:
        yield from enumerate(lines_in(stream, MAX_LINE_BYTES), 1)


def not_utf8(source: Source, number: int, line: bytes) -> Bad:
    """The bad row of bytes that are no text."""
    told = to_json(line.decode(errors="backslashreplace"))
    return Bad(source.name, number, "not UTF-8", told, to_json(source.number(number)))


def refuse_columns(source: Source, columns: Columns) -> None:
    """Raises `BulkError` if columns are wanted of an input that has none."""
    for name in columns.names:
        if name != Columns().text:
            raise BulkError(f"{source.name}: has no columns, and so no `{name}`")
