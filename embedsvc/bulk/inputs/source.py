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
"""Of a file, whatever names it has: its device and its number there."""


class Table(NamedTuple):
    """How the cells of CSV and TSV are set apart, where it is not as usual."""

    delimiter: str | None = None
    """Left out, a tab in TSV; in CSV, what makes the wanted columns of the first line."""
    quote: str | None = None
    """Left out, double quotes in CSV and none in TSV; "" for none."""
    header: bool = True
    """Whether the first line has the columns' names; if not, these are their numbers from 1."""


class Source:
    """An input, how far it is read, and how it is called in reports."""

    def __init__(self, name: str, format_: Format, *, alone: bool, table: Table) -> None:
        """`name` is a path, or "-" for what is piped in; `alone`, whether there is no other."""
        self.name = "stdin" if name == "-" else printable(name)
        self.path = None if name == "-" else Path(name)
        self.format: Format = format_
        self.table = table
        self.alone = alone
        self.bytes: int | None = None
        """All there is to read, where that is known."""
        self.read: Callable[[], int] = lambda: 0
        """Bytes read so far."""
        self.identity: Identity | None = None
        self.left_out: Callable[[], frozenset[Identity]] = frozenset
        """Files of a folder that are none of its rows."""
        self._wake: int | None = None

    @property
    def again(self) -> bool:
        """Whether it can be read more than once."""
        return self.bytes is not None

    def number(self, line: int) -> int | str:
        """The id of a row that has none of its own."""
        return line if self.alone else f"{self.name}:{line}"

    @contextmanager
    def open(self) -> Generator[io.BufferedIOBase]:
        """Its bytes, unpacked. Raises `BulkError`."""
        try:
            with self._raw() as raw:
                packed: io.BufferedReader[Any] = io.BufferedReader(raw, BUFFER_BYTES)
                self.read = packed.tell
                yield unpacked(packed, split_packing(self.name)[1])
        except (*DAMAGED, NotText) as error:
            raise BulkError(f"{self.name}: {getattr(error, 'strerror', None) or error}") from None
        self.read = lambda: self.bytes or 0

    def stop(self) -> None:
        """End a read that waits for a pipe, from another thread."""
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
    """A pipe, of which a read can be ended: a thread that waits in one would not end."""

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
    """The inputs of these names; none is what is piped in. Raises `BulkError`."""
    names = names or ["-"]
    if names.count("-") > 1:
        raise BulkError("what is piped in can be read only once: say - once")
    table = Table(delimiter, quote, header)
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


def _format(name: str, given: Format | None) -> Format:
    if name != "-" and Path(name).is_dir():
        return "folder"
    plain, _ = split_packing(name)
    if given is not None:
        return given
    for ending, format_ in ENDINGS.items():
        if plain.lower().endswith(ending):
            return format_
    which = "standard input" if name == "-" else printable(name)
    raise BulkError(f"{which}: say its --format: {', '.join(FORMATS)}")
