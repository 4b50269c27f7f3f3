"""The journal of a run: a file to which finished rows are appended, so that a run can be resumed.

It begins with a header, which describes the job. Each record after it has some rows of the output,
the rows that were set aside, and how far the input was read. Every record has a checksum: one that
a killed process left unfinished is cut off. When `append` returns, its records are on the disk.
"""

import os
import struct
import sys
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from embedsvc.bulk.manifest import Manifest, decode_probe
from embedsvc.bulk.rows import BadRow, Columns
from embedsvc.errors import BulkError

MAGIC = b"embedsvc bulk 2\n"
FRAME = struct.Struct("<QI")  # before each record: its size in bytes, and their CRC-32
T = TypeVar("T")


class Header(msgspec.Struct, frozen=True, kw_only=True, rename={"manifest": "about"}):
    """What the run does. It is resumed only by a run that does the same."""

    inputs: tuple[str, ...]
    format: str | None
    delimiter: str | None
    quote: str | None
    header: bool
    columns: Columns
    manifest: Manifest
    fingerprint: str | None = None
    """A digest of the server's model. Where the server does not tell it, the vector in `manifest`
    has to do."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Some finished rows, and the counts after them."""

    items: int
    """How many rows of the input are done, bad ones included."""
    digest: bytes
    """The digest of those rows."""
    rows: int
    """How many rows the output has, each with a vector."""
    rejected: int
    """How many rows were set aside."""
    bad: tuple[BadRow, ...] = ()
    data: bytes = b""
    """The finished rows, as the format of the output encodes them."""


class Journal:
    """The file, which is locked while it is open."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises `BulkError`, also if another process has it open."""
        self.path = path
        self.state = Record(0, b"", 0, 0)
        """The last record, without its rows."""
        self._begins = 0
        self._resumed = self.state, 0
        with self._failing():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._file = open(descriptor, "r+b")  # noqa: PTH123, SIM115 - closed by `close`
        if not self._lock():
            self._file.close()
            raise BulkError(f"{path}: another process is writing it")

    def begin(self, header: Header) -> None:
        """Start the journal, or resume it. Raises `BulkError` if it is of another job."""
        with self._failing():
            if self._is_new():
                self._file.seek(0)
                self._file.truncate()
                self._file.write(MAGIC)
                self._write([header])
                self._begins = self._file.tell()
            else:
                self._resume(header)
            self._resumed = self.state, self._file.tell()

    def _resume(self, header: Header) -> None:
        found = self._next(Header)
        if found is None:
            raise self._damaged()
        differences = ", ".join(_differences(found, header))
        if differences:
            raise BulkError(
                f"{self.path} was begun otherwise: {differences}. "
                "Go on as it was begun, or delete it"
            )
        self._begins = self._file.tell()
        for record in self.records():
            self.state = _state(record)
        self._file.truncate()

    def append(self, records: Sequence[Record]) -> None:
        """Add records, in the order of the input. Raises `BulkError` if the disk is full."""
        with self._failing():
            self._write(records)
        self.state = _state(records[-1])

    def undo(self) -> None:
        """Drop the records that were added since `begin`."""
        self.state, end = self._resumed
        with self._failing():
            self._file.truncate(end)

    def records(self) -> Iterator[Record]:
        """All complete records, of which one is in memory at a time."""
        self._file.seek(self._begins)
        while (record := self._next(Record)) is not None:
            yield record

    def close(self, *, keep: bool) -> None:
        """Close the file, and delete it unless it is to be kept and has any records."""
        with suppress(OSError):  # a failed write was reported already, and is cut off later
            if not keep or os.fstat(self._file.fileno()).st_size <= self._begins:
                self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()

    @contextmanager
    def _failing(self) -> Generator[None]:
        """Raises `BulkError` in place of `OSError`."""
        try:
            yield
        except OSError as error:
            raise BulkError(f"{self.path}: {error.strerror}") from None

    def _damaged(self) -> BulkError:
        return BulkError(f"{self.path} is damaged, or not of this version: it is in the way")

    def _write(self, values: Iterable[Header | Record]) -> None:
        for value in values:
            packed = msgspec.msgpack.encode(value)
            self._file.write(FRAME.pack(len(packed), zlib.crc32(packed)))
            self._file.write(packed)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _is_new(self) -> bool:
        """Whether the file is empty, or was left before its header was complete."""
        magic = self._file.read(len(MAGIC))
        return len(magic) < len(MAGIC) or (magic == MAGIC and self._next_size() is None)

    def _next(self, kind: type[T]) -> T | None:
        """The next record. None if it is not complete; the position in the file then stays."""
        place = self._file.tell()
        size = self._next_size()
        if size is not None:
            _, checksum = FRAME.unpack(self._file.read(FRAME.size))
            packed = self._file.read(size)
            if zlib.crc32(packed) == checksum:
                try:
                    return msgspec.msgpack.decode(packed, type=kind)
                except msgspec.MsgspecError:  # complete, but another version wrote it
                    raise self._damaged() from None
        self._file.seek(place)
        return None

    def _next_size(self) -> int | None:
        """The size of the next record in bytes; None if not all of them are there."""
        place = self._file.tell()
        head = self._file.read(FRAME.size)
        self._file.seek(place)
        if len(head) < FRAME.size:
            return None
        size, _ = FRAME.unpack(head)
        there = os.fstat(self._file.fileno()).st_size - place - FRAME.size
        return size if size <= there else None

    def _lock(self) -> bool:
        """Lock the file. False if another process has it, or has deleted it meanwhile."""
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return self.path.exists() and os.path.samestat(
            self.path.stat(), os.fstat(self._file.fileno())
        )


def _state(record: Record) -> Record:
    """The record's counts, without its rows."""
    return msgspec.structs.replace(record, bad=(), data=b"")


def _differences(old: Header, new: Header) -> Iterator[str]:
    """What differs between the run that began the journal and this one, in words."""
    if old.manifest.model == new.manifest.model and not old.manifest.is_same_model(
        decode_probe(new.manifest.probe)
    ):
        yield f"`{new.manifest.model}` gives other vectors now"
    elif old.fingerprint and new.fingerprint and old.fingerprint != new.fingerprint:
        yield f"the server's fingerprint was {old.fingerprint}, is {new.fingerprint}"
    before, now = _command_line(old), _command_line(new)
    for name, value in before.items():
        if value != now[name]:
            yield f"{name} was {_in_words(value)}, is {_in_words(now[name])}"


def _command_line(header: Header) -> dict[str, object]:
    """The options of `embedsvc embed` that a run was started with."""
    manifest, options, columns = header.manifest, header.manifest.options, header.columns
    return {
        "the input": " ".join(header.inputs),
        "--format": header.format,
        "--delimiter": header.delimiter,
        "--quote": header.quote,
        "--no-header": None if header.header else "given",
        "--column": columns.text,
        "--id-column": columns.id,
        "--keep": ",".join(columns.keep),
        "--model": manifest.model,
        "--dtype": manifest.dtype,
        "--dimensions": options.dimensions,
        "--input-type": options.input_type,
        "--prompt": options.prompt,
        "--truncate": options.truncate,
        "--chunking": options.chunking,
    }


def _in_words(value: object) -> str:
    return "not given" if value in (None, "") else str(value)
