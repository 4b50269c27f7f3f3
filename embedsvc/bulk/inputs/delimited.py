"""CSV and TSV, with the columns' names on the first line."""

import csv
from collections.abc import Iterator

from embedsvc.bulk.inputs.lines import MAX_LINE_BYTES, TOO_LONG, lines_of
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Bad, Columns, Item, to_json
from embedsvc.errors import BulkError


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """Rows with the number of their first line. Blank lines are passed over.

    Raises `BulkError` if the columns are not there.
    """
    lines = _Lines(source)
    csv.field_size_limit(MAX_LINE_BYTES)
    delimiter = source.delimiter or ("\t" if source.format == "tsv" else ",")
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = table.line_num + 1
        cells: list[str] = []
        wrong: str | None = None
        try:
            cells = next(table)
        except StopIteration:
            break
        except csv.Error as error:
            wrong = f"not CSV: {error}"
        wrong = lines.take_wrong() or wrong
        if header is None:
            if wrong:
                raise BulkError(f"{source.name}:{number}: {wrong}")
            header = _checked(source, cells, columns)
        elif wrong:
            yield Bad(source.name, number, wrong, to_json(cells or None))
        elif cells and len(cells) != len(header):
            reason = f"{len(cells)} cells, and the first line has {len(header)}"
            yield Bad(source.name, number, reason, to_json(cells))
        elif cells:
            record = dict(zip(header, cells, strict=True))
            yield columns.row(source.name, number, record, source.number(number))


class _Lines:
    """The lines as text, and what is wrong with those that the last row was made of."""

    def __init__(self, source: Source) -> None:
        self._lines = lines_of(source)
        self._wrong: str | None = None

    def __iter__(self) -> Iterator[str]:
        for _, line in self._lines:
            if line is None:
                self._wrong = TOO_LONG
                yield "\n"
                continue
            try:
                yield line.decode()
            except UnicodeDecodeError:
                self._wrong = "not UTF-8"
                yield line.decode(errors="replace")

    def take_wrong(self) -> str | None:
        wrong, self._wrong = self._wrong, None
        return wrong


def _checked(source: Source, header: list[str], columns: Columns) -> list[str]:
    for name in columns.names:
        if name not in header:
            there = ", ".join(header)
            raise BulkError(f"{source.name}: no column `{name}`; there are: {there}")
    return header
