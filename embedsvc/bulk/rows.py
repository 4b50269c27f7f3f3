"""Rows on their way from an input to the output, and rows that are set aside."""

import base64
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from embedsvc.bulk.arrow import json_form

OWN = ("id", "text", "chunk", "start", "end", "embedding")
"""Columns that an output may have itself. Columns that are carried along have other names."""

LONGEST_TEXT = 16 << 20
"""The most characters of a text. A line and a file have no more bytes than that."""
MAX_COLUMNS, MAX_NAME, MAX_REASON = 50, 100, 2000
"""Bounds of a reason: how many columns it names, the characters of a name, and all characters."""


class Row(NamedTuple):
    """A row with a text to embed."""

    file: str
    line: int
    """The number of its first line, from 1. Where there are no lines, the number of the row."""
    id: Any
    text: str
    kept: dict[str, Any]


class BadRow(NamedTuple):
    """A row that cannot be embedded."""

    file: str
    line: int
    reason: str
    row: bytes
    """What was read, in JSON."""
    id: bytes = b"null"
    """The id that it would have, in JSON."""


InputRow = Row | BadRow


class Columns(msgspec.Struct, frozen=True):
    """Which columns of an input make a row."""

    text: str = "text"
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of all of them, each once."""
        return list(dict.fromkeys([self.text, *([self.id] if self.id else []), *self.keep]))

    def row(self, file: str, line: int, record: Mapping[str, Any], number: int | str) -> InputRow:
        """The row that a record makes; `number` is its id where no column has the ids.

        It is a bad row if the column of texts or of ids is missing, or if the text is not one. A
        column that is to be carried along and is missing is null.

        >>> Columns(id="key").row("in.jsonl", 4, {"key": 17, "text": "a cat"}, 4)
        Row(file='in.jsonl', line=4, id=17, text='a cat', kept={})
        >>> Columns().row("in.jsonl", 4, {"text": None}, 4).reason
        '`text` is null'
        """
        identity = to_json(record.get(self.id, number) if self.id else number)
        for name in (self.text, self.id):
            if name is not None and name not in record:
                return BadRow(file, line, missing_column(name, record), to_json(record), identity)
        text = record[self.text]
        wrong = _wrong(text)
        if wrong:
            if isinstance(text, str):  # it may be of any length
                record = {**record, self.text: text[:MAX_REASON]}
            return BadRow(file, line, f"`{self.text}` {wrong}", to_json(record), identity)
        kept = {name: record.get(name) for name in self.keep}
        return Row(file, line, record[self.id] if self.id else number, text, kept)


def set_aside(row: Row, reason: str) -> BadRow:
    """The bad row for a row that could not be embedded."""
    content = to_json({"id": row.id, "text": row.text} | row.kept)
    return BadRow(row.file, row.line, reason[:MAX_REASON], content, to_json(row.id))


def missing_column(name: str, names: Collection[str]) -> str:
    """The reason why a row or a table is refused that has columns `names`, but not `name`.

    >>> missing_column("body", ["id", "text"])
    'no column `body`; there are: id, text'
    """
    there = [_short(name) for name in islice(names, MAX_COLUMNS)]
    if len(names) > len(there):
        there.append(f"and {len(names) - len(there):,} more")
    return f"no column `{_short(name)}`; there are: {', '.join(there) or 'none'}"


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def to_json(value: object) -> bytes:
    """A value in JSON. What JSON has no type for becomes text, bytes become base64.

    >>> to_json({"size": 2**70, "raw": b"ab"})
    b'{"size":1180591620717411303424,"raw":"YWI="}'
    """
    return msgspec.json.encode(value, enc_hook=plain)


def plain(value: Any) -> Any:
    """A value that JSON has no type for, such as one of Parquet's, as one that JSON has."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json_form(value) if hasattr(value, "as_py") else str(value)


def _wrong(text: object) -> str | None:
    """What is wrong with a text; None where nothing is."""
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
