"""Rows, on their way from an input to the output, and those that are set aside."""

import base64
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from embedsvc.bulk.arrow import json_form

OWN = ("id", "text", "chunk", "start", "end", "embedding")
"""Columns of every output, which columns that are carried along cannot be called."""

LONGEST_TEXT = 16 << 20
"""Characters of a text; lines and files have no more bytes."""
COLUMNS_TOLD, LONGEST_NAME, LONGEST_REASON = 50, 100, 2000
"""Of a reason: columns that are named, and characters of a name and in all."""


class Row(NamedTuple):
    """A row with a text to embed."""

    file: str
    line: int
    """Its first line, from 1; where there are no lines, its number among the rows."""
    id: Any
    text: str
    kept: dict[str, Any]


class Bad(NamedTuple):
    """A row that cannot be embedded."""

    file: str
    line: int
    reason: str
    row: bytes
    """What was read, as JSON."""
    id: bytes = b"null"
    """What its id would be, as JSON."""


Item = Row | Bad


class Columns(msgspec.Struct, frozen=True):
    """Which columns of an input make a row."""

    text: str = "text"
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([self.text, *([self.id] if self.id else []), *self.keep]))

    def row(self, file: str, line: int, record: Mapping[str, Any], number: int | str) -> Item:
        """The row in a record; `number` is its id where no column is.

        A bad one where the text or the id is missing, or the text is none; what is to be carried
        along and is not there is null.
        """
        identity = to_json(record.get(self.id, number) if self.id else number)
        for name in (self.text, self.id):
            if name is not None and name not in record:
                return Bad(file, line, missing_column(name, record), to_json(record), identity)
        text = record[self.text]
        wrong = _wrong(text)
        if wrong:
            if isinstance(text, str):  # of what may be of any length
                record = {**record, self.text: text[:LONGEST_REASON]}
            return Bad(file, line, f"`{self.text}` {wrong}", to_json(record), identity)
        kept = {name: record.get(name) for name in self.keep}
        return Row(file, line, record[self.id] if self.id else number, text, kept)


def set_aside(row: Row, reason: str) -> Bad:
    """The row as one that could not be embedded."""
    told = to_json({"id": row.id, "text": row.text} | row.kept)
    return Bad(row.file, row.line, reason[:LONGEST_REASON], told, to_json(row.id))


def missing_column(name: str, names: Collection[str]) -> str:
    """The reason of a row or a table that has these columns, and not that one."""
    there = [_short(name) for name in islice(names, COLUMNS_TOLD)]
    if len(names) > len(there):
        there.append(f"and {len(names) - len(there):,} more")
    return f"no column `{_short(name)}`; there are: {', '.join(there) or 'none'}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"


def to_json(value: object) -> bytes:
    """JSON, with what it has no type for as text."""
    return msgspec.json.encode(value, enc_hook=plain)


def plain(value: Any) -> Any:
    """A value of Parquet as JSON has it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json_form(value) if hasattr(value, "as_py") else str(value)


def _wrong(text: object) -> str | None:
    match text:
        case None:
            return "is null"
        case "":
            return "is empty"
        case str() if len(text) > LONGEST_TEXT:
            return f"is longer than {LONGEST_TEXT >> 20} Mi characters"
        case str():
            return None
        case bool():
            kind = "a boolean"
        case int() | float():
            kind = "a number"
        case list():
            kind = "a list"
        case dict():
            kind = "an object"
        case bytes():
            kind = "bytes"
        case _:
            kind = type(text).__name__
    return f"is {kind}, not text"
