"""The grammars of CSV (RFC 4180) and TSV (text/tab-separated-values): from lines to rows of cells.

No line is lost: a row has all lines from its first one to the one before the next row. Where a
quote is never closed, only the line that it is on is a bad row; the next one begins a row again.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from embedsvc.system.text_files import NUL

MAX_LINES = 1 << 16
"""The most lines of a row. A quote that is not closed by then counts as never closed."""
ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}
NOT_CLOSED = "not CSV: a quote that is never closed"


class Record(NamedTuple):
    """A row, good or bad."""

    line: int
    """The number of its first line."""
    cells: list[str]
    """Empty where the line is blank."""
    wrong: str | None = None
    """What is wrong with it; None where nothing is."""
    text: str | None = None
    """The line as it was read, where it could not be cut into cells."""


Line = tuple[int, bytes | None]
"""The number of a line, and its bytes with the line end; None where it is too long."""


class Lines:
    """An iterator of lines, which can be put back to be read again."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._again.popleft() if self._again else next(self._lines)

    def put_back(self, lines: Iterable[Line]) -> None:
        """Put lines before all that are still to come."""
        self._again.extendleft(reversed(list(lines)))


def csv_rows(
    lines: Lines, delimiter: str, quote: str, *, most: int, too_long: str
) -> Iterator[Record]:
    """The rows of CSV, which has no quotes if `quote` is "". A row of several lines has at most
    `most` bytes.

    >>> lines = Lines(enumerate([b'a,"b\\n', b'c"\\n', b'"never\\n', b"d,e\\n"], 1))
    >>> for row in csv_rows(lines, ",", '"', most=100, too_long=""):
    ...     print(row.line, row.cells, row.wrong)
    1 ['a', 'b\\nc'] None
    3 [] not CSV: a quote that is never closed
    4 ['d', 'e'] None
    """
    hopeless = 0  # up to this line it is known that a quote that is open there is never closed
    for line in lines:
        number, content = line
        if content is None:
            yield Record(number, [], too_long)
            continue
        begins = content
        row_lines = [line]
        size = len(content)
        row = _Row(delimiter, quote)
        text, wrong = _text_of(content)
        try:
            while not row.add_line(text):
                if row_lines[-1][0] < hopeless:
                    raise _BrokenError(NOT_CLOSED)
                line = next(lines, None)
                if line is None:
                    raise _BrokenError(NOT_CLOSED)
                row_lines.append(line)
                _, content = line
                size += len(content or b"")
                if content is None or size > most or len(row_lines) > MAX_LINES:
                    raise _BrokenError(NOT_CLOSED)
                text, also_wrong = _text_of(content)
                wrong = wrong or also_wrong
        except _BrokenError as error:
            hopeless = max(hopeless, row_lines[-1][0])
            lines.put_back(row_lines[1:])
            shown = begins.decode(errors="backslashreplace").rstrip("\r\n")
            yield Record(number, [], str(error), shown)
            continue
        yield Record(number, row.cells if begins.strip(b"\r\n") else [], wrong)


def tsv_rows(lines: Lines, delimiter: str, *, too_long: str) -> Iterator[Record]:
    """The rows of TSV, one in each line; `\\t`, `\\n`, `\\r` and `\\\\` are escapes in a cell."""
    for number, content in lines:
        if content is None:
            yield Record(number, [], too_long)
            continue
        text, wrong = _text_of(content)
        text = text.rstrip("\r\n")
        cells = [_unescaped(cell) for cell in text.split(delimiter)] if text else []
        yield Record(number, cells, wrong)


class _BrokenError(Exception):
    """The lines are not a row. The message says why."""


class _Row:
    """A row that is being read, a line at a time."""

    def __init__(self, delimiter: str, quote: str) -> None:
        self.cells: list[str] = []
        self._delimiter = delimiter
        self._quote = quote
        self._open: list[str] | None = None
        """The pieces of a cell whose quote is still open; None where there is none."""

    def add_line(self, line: str) -> bool:
        """Add a line, and return whether the row is complete. Raises `_BrokenError`."""
        at: int | None = 0
        while at is not None:
            if self._open is not None:
                at = self._close(self._open, line, at)
            elif self._quote and line.startswith(self._quote, at):
                self._open = []
                at += 1
            else:
                at = self._plain(line, at)
        return self._open is None

    def _plain(self, line: str, at: int) -> int | None:
        """Read a cell without quotes, and return where the next one begins, if there is one."""
        end = line.find(self._delimiter, at)
        if end < 0:
            self.cells.append(line[at:].rstrip("\r\n"))
            return None
        self.cells.append(line[at:end])
        return end + 1

    def _close(self, pieces: list[str], line: str, at: int) -> int | None:
        """Read the rest of a quoted cell, and return where the next one begins in this line."""
        while (end := line.find(self._quote, at)) >= 0:
            pieces.append(line[at:end])
            if not line.startswith(self._quote, end + 1):
                break
            pieces.append(self._quote)
            at = end + 2
        else:
            pieces.append(line[at:])
            return None  # the cell goes on in the next line
        self.cells.append("".join(pieces))
        self._open = None
        if line.startswith(self._delimiter, end + 1):
            return end + 2
        if line[end + 1 : end + 4].strip("\r\n"):
            raise _BrokenError("not CSV: text after the quote that closes a cell")
        return None


def _text_of(content: bytes) -> tuple[str, str | None]:
    """A line as text, and what is wrong with it, if anything is."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content.decode(errors="backslashreplace"), "not UTF-8"
    return text, NUL if "\0" in text else None


def _unescaped(cell: str) -> str:
    if "\\" not in cell:
        return cell
    return re.sub(r"\\[tnr\\]", lambda found: ESCAPES[found[0]], cell)
