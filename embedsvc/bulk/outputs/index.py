"""A finished output, which is read again a piece at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from embedsvc.bulk.manifest import Manifest

Vectors = NDArray[Any] | list[dict[str, Any]]
"""Vectors (n, D) in the type in which they are stored; or sparse ones, each `{"indices": (k,),
"values": (k,)}`."""


class Index(Protocol):
    """Reads the vectors and the rows of an output, with little of them in memory at a time."""

    path: Path
    manifest: Manifest

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All vectors in order, in blocks (n, D) of the stored type. Raises `BulkError`."""
        ...

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The rows with these numbers, from 0, without their vectors. Raises `BulkError`."""
        ...
