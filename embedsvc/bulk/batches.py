"""The rows of all inputs in batches, each of which is embedded in one call."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

from embedsvc.bulk.inputs import READERS
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Columns, InputRow, Row, to_json
from embedsvc.errors import BulkError

MIN_CHARACTERS, MAX_CHARACTERS = 1 << 13, 1 << 18
"""Bounds of a batch, unless it is a single row. The upper one bounds the memory."""
ROW_CHARACTERS = 256
"""What a row counts beside its own characters, so that a batch has at most a thousand rows."""
MAX_BYTES = 1 << 20
"""Bound of a batch with the columns that are carried along, unless it is a single row."""


@dataclass(slots=True)
class Batch:
    """Some consecutive rows, bad ones among them."""

    items: list[InputRow] = field(default_factory=list[InputRow])
    digest: bytes = b""
    """The digest of all rows of all inputs, up to the last one of this batch."""
    characters: int = 0
    bytes_read: int = 0
    """About how many bytes of the inputs were read up to there."""


def check_first_rows(sources: Sequence[Source], columns: Columns) -> None:
    """Read the first row of each file. Raises `BulkError` if it cannot be read or lacks a column.

    Pipes are left out, as they can be read only once, and folders, which have no columns.
    """
    for source in sources:
        if source.rereadable and source.format != "folder":
            items = READERS[source.format](source, columns)
            next(items, None)
            items.close()


class BatchReader:
    """An iterator that reads the inputs. One thread at a time may use it."""

    def __init__(self, sources: Sequence[Source], columns: Columns) -> None:
        self.characters = MIN_CHARACTERS
        """The wanted size of a batch. It may be changed at any time and is kept within bounds."""
        self._sources = sources
        self._digest = b""
        self._items = self._read()
        self._columns = columns

    def skip(self, digest: bytes, count: int) -> None:
        """Read `count` rows that are done. Raises `BulkError` if their digest is another one."""
        for item in islice(self._items, count):
            self._add_to_digest(item)
            count -= 1
        if count or self._digest != digest:
            raise BulkError("the input has changed: rows that were embedded before are others now")

    def __iter__(self) -> "BatchReader":
        return self

    def __next__(self) -> Batch:
        """Raises `BulkError` if an input cannot be read."""
        batch = Batch()
        most, size = min(max(self.characters, MIN_CHARACTERS), MAX_CHARACTERS), 0
        for item in self._items:
            batch.items.append(item)
            text = item.text if isinstance(item, Row) else item.row
            batch.characters += ROW_CHARACTERS + len(text)
            size += self._add_to_digest(item)
            if batch.characters >= most or size >= MAX_BYTES:
                break
        if not batch.items:
            raise StopIteration
        batch.digest, batch.bytes_read = self._digest, self.bytes_read
        return batch

    @property
    def bytes_read(self) -> int:
        """How many bytes of all inputs were read so far."""
        return sum(source.bytes_read() for source in self._sources)

    @property
    def total_bytes(self) -> int | None:
        """How many bytes all inputs have; None where that is not known."""
        known = [source.bytes for source in self._sources if source.bytes is not None]
        return sum(known) if len(known) == len(self._sources) else None

    def stop(self) -> None:
        """End a read that waits for a pipe. To be called from another thread."""
        for source in self._sources:
            source.stop()

    def close(self) -> None:
        """Close the inputs. No thread may be reading any more."""
        self._items.close()

    def _add_to_digest(self, item: InputRow) -> int:
        """Add a row to the digest, and return about how many bytes it has."""
        encoded = to_json(item)
        self._digest = blake2b(self._digest + encoded, digest_size=16).digest()
        return len(encoded)

    def _read(self) -> Generator[InputRow]:
        for source in self._sources:
            yield from READERS[source.format](source, self._columns)
