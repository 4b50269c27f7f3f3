"""CSV and TSV. The first line has the columns' names; without it they are numbered."""

import re
from collections.abc import Generator, Iterator
from itertools import chain

from embedsvc.bulk.inputs.lines import MAX_LINE_BYTES, TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.inputs.table import Line, Lines, Record, csv_rows, tsv_rows
from embedsvc.bulk.rows import BadRow, Columns, InputRow, missing_column, to_json
from embedsvc.errors import BulkError

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters of CSV that are tried: the first one under which the columns are there is used."""
SEP_LINE = re.compile(rb"sep=(.)(?:\r\n|\n|\r)?")
"""How Excel declares a delimiter, on a line of its own before all others."""


def read(source: Source, columns: Columns) -> Generator[InputRow]:
    """The rows, each with the number of its first line. Blank lines are skipped.

    Raises `BulkError` if the columns are not there.
    """
    lines = Lines(lines_of(source))
    first = _first_line(lines)
    if first is None:
        return
    delimiter = (
        source.table.delimiter
        or _declared_delimiter(lines, first)
        or _likely_delimiter(source, columns, first)
    )
    rows = _rows(source, lines, delimiter)
    header = next(rows, None)
    if header is None:
        return
    if header.wrong:
        raise BulkError(f"{source.name}:{header.line}: {header.wrong}")
    names = _names(source, header)
    _check(source, names, columns)
    for row in rows if source.table.header else chain([header], rows):
        identity = source.row_id(row.line)
        if row.wrong:
            shown = row.text if row.text is not None else row.cells or None
            yield BadRow(source.name, row.line, row.wrong, to_json(shown), to_json(identity))
        elif row.cells and len(row.cells) != len(names):
            reason = f"{len(row.cells)} cells, and the first line has {len(names)}"
            yield BadRow(source.name, row.line, reason, to_json(row.cells), to_json(identity))
        elif row.cells:
            record = dict(zip(names, row.cells, strict=True))
            yield columns.row(source.name, row.line, record, identity)


def _first_line(lines: Lines) -> Line | None:
    """The first line that is not blank. It is put back."""
    for line in lines:
        if line[1] is None or not line[1].isspace():
            lines.put_back([line])
            return line
    return None


def _declared_delimiter(lines: Lines, first: Line) -> str | None:
    """The delimiter that a line like `sep=;` declares. That line is no row and is consumed."""
    declared = SEP_LINE.fullmatch(first[1] or b"")
    if declared is None:
        return None
    next(lines)
    return declared[1].decode("latin-1")


def _likely_delimiter(source: Source, columns: Columns, first: Line) -> str:
    """The delimiter under which the first line has the columns, or else the usual one."""
    if source.format == "tsv":
        return "\t"
    for delimiter in DELIMITERS:
        header = next(_rows(source, Lines([first]), delimiter))
        if set(columns.names) <= set(_names(source, header)):
            return delimiter
    return DELIMITERS[0]


def _rows(source: Source, lines: Lines, delimiter: str) -> Iterator[Record]:
    quote = source.table.quote
    if source.format == "tsv" and not quote:
        return tsv_rows(lines, delimiter, too_long=TOO_LONG)
    if quote is None:
        quote = '"'
    return csv_rows(lines, delimiter, quote, most=MAX_LINE_BYTES, too_long=TOO_LONG)


def _names(source: Source, header: Record) -> list[str]:
    if source.table.header:
        return header.cells
    return [str(number) for number in range(1, len(header.cells) + 1)]


def _check(source: Source, names: list[str], columns: Columns) -> None:
    for name in columns.names:
        if name not in names:
            raise BulkError(f"{source.name}: {missing_column(name, names)}")
        if names.count(name) > 1:
            raise BulkError(f"{source.name}: two columns are called `{name}`")
