"""What is finished so far, on disk: a file that is only ever appended to.

It begins with the job, and each record after that has some rows of the output, those set aside,
and how far the input is read. A record has a checksum; what a killed process left of its last one
is cut off. Records are on the disk when `append` returns.
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

from embedsvc.bulk.manifest import About, read_fingerprint
from embedsvc.bulk.rows import Bad, Columns
from embedsvc.errors import BulkError

MAGIC = b"embedsvc bulk 2\n"
HEAD = struct.Struct("<QI")  # bytes of a record, and their CRC-32
T = TypeVar("T")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is being done; it goes on only as it was begun."""

    inputs: tuple[str, ...]
    format: str | None
    delimiter: str | None
    quote: str | None
    header: bool
    columns: Columns
    about: About
    fingerprint: str | None = None
    """Of a server's model; a server that does not tell it is held to the vector in `about`."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """Some rows, and the state after them."""

    items: int
    """Rows of the input so far, bad ones included."""
    digest: bytes
    """Of those."""
    rows: int
    """Vectors so far."""
    rejected: int
    """Bad rows so far."""
    bad: tuple[Bad, ...] = ()
    data: bytes = b""
    """The rows, as the output has them."""


class Partial:
    """The file, locked while it is open."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises `BulkError`, also where another process has it."""
        self.path = path
        self.state = Record(0, b"", 0, 0)
        """After the last record."""
        self._begins = 0
        self._resumed = self.state, 0
        with self._failing():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._file = open(descriptor, "r+b")  # noqa: PTH123, SIM115 - closed by `close`
        if not self._lock():
            self._file.close()
            raise BulkError(f"{path}: another process is writing it")

    def begin(self, job: Job) -> None:
        """Go on where it ends, or begin. Raises `BulkError` if it is of another job."""
        with self._failing():
            if self._is_new():
                self._file.seek(0)
                self._file.truncate()
                self._file.write(MAGIC)
                self._write([job])
                self._begins = self._file.tell()
            else:
                self._go_on(job)
            self._resumed = self.state, self._file.tell()

    def _go_on(self, job: Job) -> None:
        found = self._next(Job)
        if found is None:
            raise self._damaged()
        differences = ", ".join(_differences(found, job))
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
        """Add records, in the order of the input. Raises `BulkError`, as on a full disk."""
        with self._failing():
            self._write(records)
        self.state = _state(records[-1])

    def undo(self) -> None:
        """Drop what was added since `begin`."""
        self.state, end = self._resumed
        with self._failing():
            self._file.truncate(end)

    def records(self) -> Iterator[Record]:
        """All that are whole; one at a time is in memory."""
        self._file.seek(self._begins)
        while (record := self._next(Record)) is not None:
            yield record

    def close(self, *, keep: bool) -> None:
        """Let go of the file, and delete it unless it is to be kept and has any rows."""
        with suppress(OSError):  # what could not be written is said already, and is cut off later
            if not keep or os.fstat(self._file.fileno()).st_size <= self._begins:
                self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self._file.close()

    @contextmanager
    def _failing(self) -> Generator[None]:
        """Raises `BulkError` in place of `OSError`, as on a full disk."""
        try:
            yield
        except OSError as error:
            raise BulkError(f"{self.path}: {error.strerror}") from None

    def _damaged(self) -> BulkError:
        return BulkError(f"{self.path} is damaged, or not of this version: it is in the way")

    def _write(self, values: Iterable[Job | Record]) -> None:
        for value in values:
            packed = msgspec.msgpack.encode(value)
            self._file.write(HEAD.pack(len(packed), zlib.crc32(packed)))
            self._file.write(packed)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _is_new(self) -> bool:
        """Whether it is empty, or the process that began it did not get far."""
        magic = self._file.read(len(MAGIC))
        return len(magic) < len(MAGIC) or (magic == MAGIC and self._next_size() is None)

    def _next(self, kind: type[T]) -> T | None:
        """What is next, if it is whole; if not, the file stays where it is."""
        place = self._file.tell()
        size = self._next_size()
        if size is not None:
            _, checksum = HEAD.unpack(self._file.read(HEAD.size))
            packed = self._file.read(size)
            if zlib.crc32(packed) == checksum:
                try:
                    return msgspec.msgpack.decode(packed, type=kind)
                except msgspec.MsgspecError:  # whole, and not as this version writes it
                    raise self._damaged() from None
        self._file.seek(place)
        return None

    def _next_size(self) -> int | None:
        """The bytes of the next record, if they are all there."""
        place = self._file.tell()
        head = self._file.read(HEAD.size)
        self._file.seek(place)
        if len(head) < HEAD.size:
            return None
        size, _ = HEAD.unpack(head)
        there = os.fstat(self._file.fileno()).st_size - place - HEAD.size
        return size if size <= there else None

    def _lock(self) -> bool:
        """Whether nobody else has the file, which others may have deleted meanwhile."""
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
    return msgspec.structs.replace(record, bad=(), data=b"")


def _differences(was: Job, job: Job) -> Iterator[str]:
    """In which options two jobs differ."""
    if was.about.model == job.about.model and not was.about.is_by(
        read_fingerprint(job.about.fingerprint)
    ):
        yield f"`{job.about.model}` gives other vectors now"
    elif was.fingerprint and job.fingerprint and was.fingerprint != job.fingerprint:
        yield f"the server's fingerprint was {was.fingerprint}, is {job.fingerprint}"
    before, now = _options(was), _options(job)
    for name, value in before.items():
        if value != now[name]:
            yield f"{name} was {_said(value)}, is {_said(now[name])}"


def _options(job: Job) -> dict[str, object]:
    about, how, columns = job.about, job.about.how, job.columns
    return {
        "the input": " ".join(job.inputs),
        "--format": job.format,
        "--delimiter": job.delimiter,
        "--quote": job.quote,
        "--no-header": None if job.header else "given",
        "--column": columns.text,
        "--id-column": columns.id,
        "--keep": ",".join(columns.keep),
        "--model": about.model,
        "--dtype": about.dtype,
        "--dimensions": how.dimensions,
        "--input-type": how.input_type,
        "--prompt": how.prompt,
        "--truncate": how.truncate,
        "--chunking": how.chunking,
    }


def _said(value: object) -> str:
    return "not given" if value in (None, "") else str(value)
