"""One file from a hub to this disk: gone on with where it was cut, and checked."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NamedTuple

import httpx2
from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType] - of an unused parameter
    hf_raise_for_status,
)

from embedsvc.errors import Stopped

TRIES = 6
"""Times in a row that nothing comes, until a download is given up."""
PAUSE_SECONDS = 0.5
"""Before the second try; each time twice as long."""
TIMEOUT = httpx2.Timeout(30.0, connect=10.0)


class BrokenFile(Exception):
    """A file came as another than the hub says."""


class File(NamedTuple):
    """A file of a repository."""

    name: str
    size: int
    checksum: str
    """sha256 of a large one; of others git's, by which the hub names them."""


def part_of(blobs: Path, file: File) -> Path:
    return blobs / f"{file.checksum}.part"


def fetch(url: str, file: File, blobs: Path, advance: Callable[[int], None], stop: Event) -> None:
    """Bring a file to its place, from where it was left; what is cut is taken up again."""
    part = part_of(blobs, file)
    failures = 0
    while True:
        here = part.stat().st_size if part.exists() else 0
        try:
            _stream(url, part, here, file.size, advance)
            break
        except httpx2.HTTPError as error:
            if isinstance(error, HfHubHTTPError) and not _passes(error.response.status_code):
                raise
            came = part.exists() and part.stat().st_size > here
            failures = 0 if came else failures + 1
            if failures == TRIES:
                raise
        if stop.wait(PAUSE_SECONDS * 2**failures):
            raise Stopped("the download was stopped")
    found = _checksum(part, file)
    if found != file.checksum:
        part.unlink()
        raise BrokenFile(
            f"has a file that came broken, {file.name}: its checksum is {found}, the hub says "
            f"{file.checksum}; it was deleted"
        )
    part.replace(blobs / file.checksum)


def _stream(url: str, part: Path, here: int, size: int, advance: Callable[[int], None]) -> None:
    """Add what is missing of a file."""
    if here == size and part.exists():
        return
    headers = build_hf_headers()
    if 0 < here < size:
        headers["Range"] = f"bytes={here}-"
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as answer:
        hf_raise_for_status(answer)
        goes_on = answer.status_code == 206
        with part.open("ab" if goes_on else "wb") as stream:
            here = here if goes_on else 0
            for chunk in answer.iter_bytes():
                stream.write(chunk)
                here += len(chunk)
                advance(here)
            stream.flush()
            os.fsync(stream.fileno())
    if here < size:
        raise httpx2.RemoteProtocolError("the connection was cut")


def _passes(status: int) -> bool:
    """Whether such a refusal may be over soon."""
    return status in (408, 416, 429) or status >= 500


def _checksum(part: Path, file: File) -> str:
    if len(file.checksum) == 64:
        with part.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    content = part.read_bytes()
    head = b"blob %d\0" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
