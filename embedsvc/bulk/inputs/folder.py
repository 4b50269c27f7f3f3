"""A folder: every file in it, and in the folders below, is a row. Rows are in order of names."""

import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from embedsvc.bulk.inputs.lines import MAX_LINE_BYTES, TOO_LONG, not_utf8, refuse_columns
from embedsvc.bulk.inputs.source import Identity, Source
from embedsvc.bulk.rows import BadRow, Columns, InputRow, Row, to_json
from embedsvc.system.text_files import NotText, decode, printable


def read(source: Source, columns: Columns) -> Generator[InputRow]:
    """Rows whose id is the path of their file. Hidden files and those of the run are skipped."""
    refuse_columns(source, columns)
    folder = os.fspath(source.path or ".")
    source.bytes = sum(size for _, size, _ in _files(folder, source.excluded()))
    done = 0
    source.bytes_read = lambda: done
    for path, size, wrong in _files(folder, source.excluded()):
        if wrong is None:
            yield _row(source, path, size)
        else:
            name = printable(path)
            yield BadRow(name, 1, f"cannot be read: {wrong}", b"null", to_json(name))
        done += size


def _row(source: Source, path: str, size: int) -> InputRow:
    name = printable(path)
    if size > MAX_LINE_BYTES:
        return BadRow(name, 1, TOO_LONG, b"null", to_json(name))
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_LINE_BYTES + 1)
    except OSError as error:
        return BadRow(name, 1, f"cannot be read: {error.strerror}", b"null", to_json(name))
    if len(content) > MAX_LINE_BYTES:  # it has grown meanwhile
        return BadRow(name, 1, TOO_LONG, b"null", to_json(name))
    try:
        text = decode(content)
    except NotText as error:
        if b"\0" in content:
            return BadRow(name, error.line, "not text", b"null", to_json(name))
        return not_utf8(source, error.line, content)._replace(file=name, id=to_json(name))
    if not text.strip():
        return BadRow(name, 1, "is empty", b"null", to_json(name))
    return Row(name, 1, name, text, {})


def _files(folder: str, excluded: frozenset[Identity]) -> Iterator[tuple[str, int, str | None]]:
    """Path and bytes of each file, and why it cannot be read, if it cannot; folders too."""
    waiting = [folder]  # the next one last
    while waiting:
        path = waiting.pop()
        try:
            if path == folder or _is_folder(path):
                with os.scandir(path) as entries:
                    names = [entry.name for entry in entries if not entry.name.startswith(".")]
                names.sort(reverse=True)
                waiting += [os.path.join(path, name) for name in names]  # noqa: PTH118
                continue
            status = os.stat(path)  # noqa: PTH116 - of what may be many files
        except OSError as error:  # the file is gone, may not be read, or links to itself
            yield path, 0, error.strerror
            continue
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in excluded:
            yield path, status.st_size, None


def _is_folder(path: str) -> bool:
    """Whether a path is a folder itself. Links to folders are skipped: they may lead in circles."""
    return stat.S_ISDIR(os.lstat(path).st_mode)
