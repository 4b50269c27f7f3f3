"""A finished output, read back a piece at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from embedsvc.bulk.manifest import About


class Index(Protocol):
    """Vectors and rows of an output, of which little is in memory at a time."""

    path: Path
    about: About

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All vectors in order, (n, D) as they are stored. Raises `BulkError` if it is damaged."""
        ...

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of these numbers, from 0, without their vectors. Raises `BulkError`."""
        ...
