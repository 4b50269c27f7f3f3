"""One input: a file, a folder, or what is piped in."""

import gzip
import io
import os
import select
import stat
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from embedsvc.bulk.arrow import arrow
from embedsvc.errors import BulkError
from embedsvc.text_files import NotText

Format = Literal["jsonl", "csv", "tsv", "parquet", "lines", "folder"]
FORMATS = tuple(name for name in get_args(Format) if name != "folder")
ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "lines",
    ".text": "lines",
}
BUFFER_BYTES = 1 << 20


class Source:
    """An input, how far it is read, and how it is called in reports."""

    def __init__(self, name: str, format_: Format, *, alone: bool) -> None:
        """`name` is a path, or "-" for what is piped in; `alone`, whether there is no other."""
        self.name = "stdin" if name == "-" else name
        self.path = None if name == "-" else Path(name)
        self.format: Format = format_
        self.delimiter: str | None = None
        """Of a table's cells; left out, what goes with the format."""
        self.alone = alone
        self.bytes: int | None = None
        """All there is to read, where that is known."""
        self.read: Callable[[], int] = lambda: 0
        """Bytes read so far."""
        self._wake: int | None = None

    def number(self, line: int) -> int | str:
        """The id of a row that has none of its own."""
        return line if self.alone else f"{self.name}:{line}"

    @contextmanager
    def open(self) -> Generator[io.BufferedIOBase]:
        """Its bytes, unpacked if the name ends in .gz. Raises `BulkError`."""
        try:
            with self._raw() as raw:
                packed = io.BufferedReader(raw, BUFFER_BYTES)
                self.read = packed.tell
                yield gzip.GzipFile(fileobj=packed) if self.name.endswith(".gz") else packed
        except (OSError, EOFError, NotText) as error:
            raise BulkError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from None
        self.read = lambda: self.bytes or 0

    def stop(self) -> None:
        """End a read that waits for a pipe, from another thread."""
        if self._wake is not None:
            os.write(self._wake, b".")

    def _raw(self) -> io.RawIOBase:
        if self.path is not None:
            return open(self.path, "rb", buffering=0)  # noqa: PTH123 - it is returned
        if stat.S_ISREG(os.fstat(0).st_mode) or sys.platform == "win32":
            return open(0, "rb", buffering=0, closefd=False)
        asleep, self._wake = os.pipe()
        return _Pipe(asleep)


class _Pipe(io.RawIOBase):
    """Standard input, of which a read can be ended: a thread that waits in one would not end."""

    def __init__(self, asleep: int) -> None:
        self._asleep = asleep
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        ready, _, _ = select.select([0, self._asleep], [], [])
        if self._asleep in ready:
            return 0
        count = os.readv(0, [buffer])
        self._read += count
        return count

    def tell(self) -> int:
        return self._read


def find_sources(
    names: Sequence[str], format_: Format | None, delimiter: str | None
) -> list[Source]:
    """Inputs by name, folders among them; none: what is piped in.

    Raises `BulkError` for one that is not there, or whose format its name does not tell, or needs
    an extra.
    """
    names = names or ["-"]
    sources: list[Source] = []
    for name in names:
        source = Source(name, format_ or _format(name), alone=len(names) == 1)
        source.delimiter = delimiter
        if source.format == "parquet":
            arrow()
        if source.path is None:
            status = os.fstat(0)
        else:
            try:
                status = source.path.stat()
            except OSError as error:
                raise BulkError(f"{name}: {error.strerror}") from None
        if stat.S_ISDIR(status.st_mode):
            source.format = "folder"
        elif stat.S_ISREG(status.st_mode):
            source.bytes = status.st_size
        sources.append(source)
    return sources


def _format(name: str) -> Format:
    path = Path(name.removesuffix(".gz"))
    if path.suffix in ENDINGS:
        return ENDINGS[path.suffix]
    if path.is_dir():
        return "folder"
    which = "standard input" if name == "-" else name
    raise BulkError(f"{which}: say its --format: {', '.join(FORMATS)}")
