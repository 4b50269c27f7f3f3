"""What a dialect is, where no request has been read yet: its paths, and how its errors look."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from embedsvc.errors import RequestError


class Dialect(NamedTuple):
    """How errors are answered below some paths."""

    name: str
    paths: tuple[str, ...]
    """The paths of the dialect. Those below them are its own, too."""
    answer: type[msgspec.Struct]
    """What `write` returns."""
    write: Callable[[RequestError], msgspec.Struct]
    """An error in the shape that clients of this dialect read."""
