"""Inputs of `embedsvc embed`, written and read back as rows."""

import gzip
from pathlib import Path

from embedsvc.bulk.inputs import READERS
from embedsvc.bulk.inputs.source import find_sources
from embedsvc.bulk.rows import BadRow, Columns, InputRow, Row


def read_rows(
    name: str,
    content: str | bytes | None,
    *columns: object,
    header: bool = True,
    **options: str,
) -> list[InputRow]:
    """The rows of a file in the working folder, which is written unless its content is None."""
    if content is not None:
        data = content.encode() if isinstance(content, str) else content
        Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    said = (options.get(option) for option in ("format", "delimiter", "quote"))
    sources = find_sources([name], *said, header=header)  # type: ignore[arg-type]
    return list(READERS[sources[0].format](sources[0], Columns(*columns)))  # type: ignore[arg-type]


def good(items: list[InputRow]) -> list[tuple[int, object, str]]:
    return [(row.line, row.id, row.text) for row in items if isinstance(row, Row)]


def bad(items: list[InputRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in items if isinstance(row, BadRow)]
