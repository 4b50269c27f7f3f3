"""The grammars of CSV (RFC 4180) and TSV (text/tab-separated-values): lines to rows of cells.

No line is lost: a row has all lines from its first to the one before the next row's. A quote that
is not closed as it must be costs the line it is on; the lines after it are read as if it were not.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from embedsvc.system.text_files import NUL

MAX_LINES = 1 << 16
"""Of a row: if a quote is not closed by then, it is taken for one that never is."""
ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}
NOT_CLOSED = "not CSV: a quote that is never closed"


class Record(NamedTuple):
    """A row, good or bad."""

    line: int
    """Its first."""
    cells: list[str]
    """None of them: a blank line."""
    wrong: str | None = None
    """What is wrong with it, if anything is."""
    text: str | None = None
    """The line as it was read, where it could not be cut into cells."""


Line = tuple[int, bytes | None]
"""Its number, and its bytes with its end; none if it is too long."""


class Lines:
    """Lines that can be put back, to be read again."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._again.popleft() if self._again else next(self._lines)

    def put_back(self, lines: Iterable[Line]) -> None:
        """In their order, before all others."""
        self._again.extendleft(reversed(list(lines)))


def csv_rows(
    lines: Lines, delimiter: str, quote: str, *, most: int, too_long: str
) -> Iterator[Record]:
    """The rows of CSV; `quote` may be none. A row has at most `most` bytes if it has lines."""
    hopeless = 0  # the last line up to which a cell that goes on is known not to be closed well
    for line in lines:
        number, content = line
        if content is None:
            yield Record(number, [], too_long)
            continue
        begins = content
        taken = [line]
        size = len(content)
        row = _Row(delimiter, quote)
        text, wrong = _text_of(content)
        try:
            while not row.take(text):
                if taken[-1][0] < hopeless:
                    raise _BrokenError(NOT_CLOSED)
                line = next(lines, None)
                if line is None:
                    raise _BrokenError(NOT_CLOSED)
                taken.append(line)
                _, content = line
                size += len(content or b"")
                if content is None or size > most or len(taken) > MAX_LINES:
                    raise _BrokenError(NOT_CLOSED)
                text, also_wrong = _text_of(content)
                wrong = wrong or also_wrong
        except _BrokenError as error:
            hopeless = max(hopeless, taken[-1][0])
            lines.put_back(taken[1:])
            told = begins.decode(errors="backslashreplace").rstrip("\r\n")
            yield Record(number, [], str(error), told)
            continue
        yield Record(number, row.cells if begins.strip(b"\r\n") else [], wrong)


def tsv_rows(lines: Lines, delimiter: str, *, too_long: str) -> Iterator[Record]:
    """The rows of TSV: each line is one; `\\t`, `\\n`, `\\r`, `\\\\` stand for what they say."""
    for number, content in lines:
        if content is None:
            yield Record(number, [], too_long)
            continue
        text, wrong = _text_of(content)
        text = text.rstrip("\r\n")
        cells = [_unescaped(cell) for cell in text.split(delimiter)] if text else []
        yield Record(number, cells, wrong)


class _BrokenError(Exception):
    """What is read is no row; the message says why."""


class _Row:
    """A row that is being read, a line at a time."""

    def __init__(self, delimiter: str, quote: str) -> None:
        self.cells: list[str] = []
        self._delimiter = delimiter
        self._quote = quote
        self._open: list[str] | None = None
        """Pieces of a cell whose quote is not closed yet."""

    def take(self, line: str) -> bool:
        """Whether the row is whole with this line. Raises `_BrokenError`."""
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
        """Take a cell without quotes; where the next begins, if there is one."""
        end = line.find(self._delimiter, at)
        if end < 0:
            self.cells.append(line[at:].rstrip("\r\n"))
            return None
        self.cells.append(line[at:end])
        return end + 1

    def _close(self, pieces: list[str], line: str, at: int) -> int | None:
        """Take the rest of a cell in quotes; where the next begins, if there is one here."""
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
    """A line as text, and what is wrong with it."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return content.decode(errors="backslashreplace"), "not UTF-8"
    return text, NUL if "\0" in text else None


def _unescaped(cell: str) -> str:
    if "\\" not in cell:
        return cell
    return re.sub(r"\\[tnr\\]", lambda found: ESCAPES[found[0]], cell)
