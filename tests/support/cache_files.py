"""Cache files of a test, closed at its end."""

from pathlib import Path

from embedsvc.serving.cache_file import CacheFile
from tests.support.clock import Clock

OPEN: list[CacheFile] = []
"""The files of the running test, closed at its end."""


def cache_file(path: Path, *, max_bytes: int = 2**30, clock: Clock | None = None) -> CacheFile:
    made = CacheFile(path, max_bytes=max_bytes, clock=clock or Clock())
    OPEN.append(made)
    return made


def close_all() -> None:
    """Close them: each test does at its end."""
    while OPEN:
        OPEN.pop().close()
