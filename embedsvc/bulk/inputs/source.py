"""One input: a file, a folder, or what is piped in."""

import io
import os
import select
import stat
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from embedsvc.bulk.arrow import arrow
from embedsvc.bulk.inputs.packed import DAMAGED, split_packing, unpacked
from embedsvc.errors import BulkError
from embedsvc.system.text_files import NotText, printable

Format = Literal["jsonl", "csv", "tsv", "parquet", "lines", "rejects", "folder"]
FORMATS = tuple(name for name in get_args(Format) if name != "folder")
ENDINGS: dict[str, Format] = {
    ".rejects.jsonl": "rejects",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "lines",
    ".text": "lines",
}
BUFFER_BYTES = 1 << 20
Identity = tuple[int, int]
"""The device and the inode of a file, which tell it whatever names it has."""


class TableFormat(NamedTuple):
    """How CSV and TSV are written, where it is not as usual."""

    delimiter: str | None = None
    """None: a tab in TSV; in CSV, the delimiter under which the first line has the columns."""
    quote: str | None = None
    """None: double quotes in CSV, no quotes in TSV. "": no quotes."""
    header: bool = True
    """Whether the first line has the columns' names. Otherwise they are numbered from 1."""


class Source:
    """An input, how far it was read, and its name in messages."""

    def __init__(self, name: str, format_: Format, *, alone: bool, table: TableFormat) -> None:
        """`name` is a path, or "-" for standard input; `alone` says that it is the only input."""
        self.name = "stdin" if name == "-" else printable(name)
        self.path = None if name == "-" else Path(name)
        self.format: Format = format_
        self.table = table
        self.alone = alone
        self.bytes: int | None = None
        """The size of the input; None where it is not known."""
        self.bytes_read: Callable[[], int] = lambda: 0
        """How many bytes were read so far."""
        self.identity: Identity | None = None
        self.excluded: Callable[[], frozenset[Identity]] = frozenset
        """Files in a folder that are not to be read."""
        self._wake: int | None = None

    @property
    def rereadable(self) -> bool:
        """Whether it can be read more than once."""
        return self.bytes is not None

    def row_id(self, line: int) -> int | str:
        """The id of a row without one: its line, and with several inputs the input's name too."""
        return line if self.alone else f"{self.name}:{line}"

    @contextmanager
    def open(self) -> Generator[io.BufferedIOBase]:
        """A stream of its bytes, decompressed. Raises `BulkError`."""
        try:
            with self._raw() as raw:
                packed: io.BufferedReader[Any] = io.BufferedReader(raw, BUFFER_BYTES)
                self.bytes_read = packed.tell
                yield unpacked(packed, split_packing(self.name)[1])
        except (*DAMAGED, NotText) as error:
            raise BulkError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from None
        self.bytes_read = lambda: self.bytes or 0

    def stop(self) -> None:
        """End a read that waits for a pipe. To be called from another thread."""
        if self._wake is not None:
            os.write(self._wake, b".")

    def _raw(self) -> io.RawIOBase:
        if self.bytes is not None or sys.platform == "win32":
            if self.path is None:
                return open(0, "rb", buffering=0, closefd=False)
            return open(self.path, "rb", buffering=0)  # noqa: PTH123 - it is returned
        descriptor = 0 if self.path is None else os.open(self.path, os.O_RDONLY)
        asleep, self._wake = os.pipe()
        return _Pipe(descriptor, asleep)


class _Pipe(io.RawIOBase):
    """A pipe whose reads can be ended: otherwise a thread that waits for one would never end."""

    def __init__(self, descriptor: int, asleep: int) -> None:
        self._descriptor = descriptor
        self._asleep = asleep
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        ready, _, _ = select.select([self._descriptor, self._asleep], [], [])
        if self._asleep in ready:
            return 0
        count = os.readv(self._descriptor, [buffer])
        self._read += count
        return count

    def tell(self) -> int:
        return self._read

    def close(self) -> None:
        if self._descriptor and not self.closed:
            os.close(self._descriptor)
            os.close(self._asleep)
        super().close()


def find_sources(
    names: Sequence[str],
    format_: Format | None,
    delimiter: str | None,
    quote: str | None = None,
    *,
    header: bool = True,
) -> list[Source]:
    """The inputs of these names; without any, standard input. Raises `BulkError`."""
    names = names or ["-"]
    if names.count("-") > 1:
        raise BulkError("what is piped in can be read only once: say - once")
    table = TableFormat(delimiter, quote, header)
    sources: list[Source] = []
    for name in names:
        source = Source(name, _format(name, format_), alone=len(names) == 1, table=table)
        try:
            status = os.fstat(0) if source.path is None else source.path.stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BulkError(f"{source.name}: {reason}") from None
        source.identity = status.st_dev, status.st_ino
        if stat.S_ISDIR(status.st_mode) and source.path is None:
            raise BulkError("stdin: is a folder: name it")
        if stat.S_ISREG(status.st_mode):
            source.bytes = status.st_size
        if source.format == "parquet":
            arrow()
            _check_parquet(source)
        sources.append(source)
    return sources


def _check_parquet(source: Source) -> None:
    if source.path is None:
        raise BulkError("Parquet cannot be piped in: name the file")
    if source.bytes is None:
        raise BulkError(f"{source.name}: Parquet is read from a file, and this is none")
    if packing := split_packing(source.name)[1]:
        raise BulkError(f"{source.name}: Parquet is compressed inside; unpack this {packing} first")


def _format(name: str, stated: Format | None) -> Format:
    if name != "-" and Path(name).is_dir():
        return "folder"
    plain, _ = split_packing(name)
    if stated is not None:
        return stated
    for ending, format_ in ENDINGS.items():
        if plain.lower().endswith(ending):
            return format_
    which = "standard input" if name == "-" else printable(name)
    raise BulkError(f"{which}: say its --format: {', '.join(FORMATS)}")
