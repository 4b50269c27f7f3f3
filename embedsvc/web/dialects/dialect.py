"""What a dialect is, where no request has been read yet: its paths, and how its errors look."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from starlette.requests import Request

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


def speak(request: Request, dialect: Dialect) -> None:
    """Have the request's errors written in that dialect, where not the path but the body says it.

    They have to fit what the dialect of the path answers.
    """
    request.scope["dialect"] = dialect


def spoken(request: Request) -> Dialect | None:
    """The dialect that a request's body was found to be in, if `speak` was called."""
    return request.scope.get("dialect")
