"""Reports on how far a long task is."""

from typing import Protocol


class Progress(Protocol):
    """Is called with the bytes that are done and those that there are to do; from any thread."""

    def __call__(self, done: int, total: int, /) -> None: ...
