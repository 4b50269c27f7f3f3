"""The rows of all inputs, in blocks that are embedded in one call each."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

from embedsvc.bulk.inputs import READERS
from embedsvc.bulk.inputs.source import Source
from embedsvc.bulk.rows import Columns, Item, Row, to_json
from embedsvc.errors import BulkError

LEAST, MOST = 1 << 13, 1 << 18
"""Characters of a block, unless it is one row: the most bounds the memory."""
ROW = 256
"""What a row counts beside its characters: of the shortest, a block has a thousand."""
MOST_BYTES = 1 << 20
"""Of a block with what is carried along, unless it is one row."""


@dataclass(slots=True)
class Block:
    """Some rows, bad ones among them."""

    items: list[Item] = field(default_factory=list[Item])
    digest: bytes = b""
    """Of all rows up to the last of these."""
    characters: int = 0
    read: int = 0
    """Bytes of the inputs up to there, more or less."""


def check_beginnings(sources: Sequence[Source], columns: Columns) -> None:
    """Read the beginning of each file. Raises `BulkError` if it cannot be read or lacks a column.

    What is piped in can be read only once, and a folder has neither.
    """
    for source in sources:
        if source.again and source.format != "folder":
            items = READERS[source.format](source, columns)
            next(items, None)
            items.close()


class Blocks:
    """Reads while it is iterated, on any one thread."""

    def __init__(self, sources: Sequence[Source], columns: Columns) -> None:
        self.characters = LEAST
        """Of a block; may be changed while it runs, and is kept within bounds."""
        self._sources = sources
        self._digest = b""
        self._items = self._read()
        self._columns = columns

    def pass_over(self, digest: bytes, count: int) -> None:
        """Read so many rows that are done. Raises `BulkError` if their digest is another."""
        for item in islice(self._items, count):
            self._add(item)
            count -= 1
        if count or self._digest != digest:
            raise BulkError("the input has changed: rows that were embedded before are others now")

    def __iter__(self) -> "Blocks":
        return self

    def __next__(self) -> Block:
        """Raises `BulkError` if an input cannot be read."""
        block = Block()
        most, size = min(max(self.characters, LEAST), MOST), 0
        for item in self._items:
            block.items.append(item)
            block.characters += ROW + len(item.text if isinstance(item, Row) else item.row)
            size += self._add(item)
            if block.characters >= most or size >= MOST_BYTES:
                break
        if not block.items:
            raise StopIteration
        block.digest, block.read = self._digest, self.read
        return block

    @property
    def read(self) -> int:
        """Bytes read of all inputs."""
        return sum(source.read() for source in self._sources)

    @property
    def total(self) -> int | None:
        """Bytes of all inputs, where they are known."""
        known = [source.bytes for source in self._sources if source.bytes is not None]
        return sum(known) if len(known) == len(self._sources) else None

    def stop(self) -> None:
        """End a read that waits, from another thread."""
        for source in self._sources:
            source.stop()

    def close(self) -> None:
        """Let go of the inputs, when nothing is read any more."""
        self._items.close()

    def _add(self, item: Item) -> int:
        """Take it into the digest; its bytes, more or less."""
        told = to_json(item)
        self._digest = blake2b(self._digest + told, digest_size=16).digest()
        return len(told)

    def _read(self) -> Generator[Item]:
        for source in self._sources:
            yield from READERS[source.format](source, self._columns)
