"""A folder: every file in it and below is a row, in the order of their names."""

import os
from collections.abc import Iterator
from pathlib import Path

from embedsvc.bulk.inputs.lines import MAX_LINE_BYTES, TOO_LONG, not_utf8, refuse_columns
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Bad, Columns, Item, Row
from embedsvc.text_files import NotText, decode


def read(source: Source, columns: Columns) -> Iterator[Item]:
    """Rows with the path of their file as id. What is hidden is passed over."""
    refuse_columns(source, columns)
    source.bytes = sum(size for _, size in _files(source.name))
    done = 0
    source.read = lambda: done
    for path, size in _files(source.name):
        yield _row(source, path, size)
        done += size


def _row(source: Source, path: str, size: int) -> Item:
    if size > MAX_LINE_BYTES:
        return Bad(path, 1, TOO_LONG, b"null")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return Bad(path, 1, f"cannot be read: {error.strerror}", b"null")
    try:
        text = decode(content)
    except NotText as error:
        if b"\0" in content:
            return Bad(path, error.line, "not text", b"null")
        return not_utf8(source, error.line, content)._replace(file=path)
    if not text.strip():
        return Bad(path, 1, "is empty", b"null")
    return Row(path, 1, path, text, {})


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Path and bytes of each file."""
    with os.scandir(folder) as entries:
        named = sorted(entries, key=lambda entry: entry.name)
    for entry in named:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif entry.is_file():
            yield entry.path, entry.stat().st_size
