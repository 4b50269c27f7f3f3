"""One file from a hub to this disk: gone on with where it was cut, and checked."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NamedTuple

import httpx2
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType] - of an unused parameter
)

from embedsvc.bounds import HUB_UNSTATED_BYTES
from embedsvc.checkpoints.hub_client import BrokenAnswer, Refused, opened
from embedsvc.errors import Stopped

TRIES = 6
"""Times in a row that nothing comes, until a download is given up."""
PAUSE_SECONDS = 0.5
"""Before the second try; each time twice as long."""
PIECE = 1 << 20


class File(NamedTuple):
    """A file of a repository."""

    name: str
    size: int | None
    """Bytes, if the hub says it."""
    checksum: str
    """sha256 of a large one; of others git's, by which the hub names them."""


def part_of(blobs: Path, file: File) -> Path:
    return blobs / f"{file.checksum}.part"


def fetch(url: str, file: File, blobs: Path, advance: Callable[[int], None], stop: Event) -> None:
    """Bring a file to its place, from where it was left; what is cut is taken up again.

    Raises `BrokenAnswer` if it comes as another than the hub says, `Refused`, `httpx2.HTTPError`,
    `Stopped` once `stop` is set.
    """
    part = part_of(blobs, file)
    failures = 0
    while True:
        here = part.stat().st_size if part.exists() else 0
        try:
            _stream(url, part, here, file, advance)
            break
        except (httpx2.HTTPError, Refused) as error:
            if isinstance(error, Refused) and not _passes(error.status):
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
        raise BrokenAnswer(
            f"has a file that came broken, {file.name}: its checksum is {found}, the hub says "
            f"{file.checksum}; it was deleted"
        )
    part.replace(blobs / file.checksum)


def _stream(url: str, part: Path, here: int, file: File, advance: Callable[[int], None]) -> None:
    """Add what is missing of a file."""
    size = file.size
    if here == size and part.exists():
        return
    headers = build_hf_headers()
    wanted = size is not None and 0 < here < size
    if wanted:
        headers["Range"] = f"bytes={here}-"
    most = HUB_UNSTATED_BYTES if size is None else size
    with opened(url, headers) as answer:
        goes_on = wanted and answer.status_code == 206
        with part.open("ab" if goes_on else "wb") as stream:
            here = here if goes_on else 0
            for chunk in answer.iter_raw():
                here += len(chunk)
                if here > most:
                    part.unlink()
                    raise BrokenAnswer(
                        f"has a file that does not end where it should, {file.name}: {most} bytes "
                        "were to come; it was deleted"
                    )
                stream.write(chunk)
                advance(here)
            stream.flush()
            os.fsync(stream.fileno())
    if size is not None and here < size:
        raise httpx2.RemoteProtocolError("the connection was cut")


def _passes(status: int) -> bool:
    """Whether such a refusal may be over soon."""
    return status in (408, 416, 429) or status >= 500


def _checksum(part: Path, file: File) -> str:
    if len(file.checksum) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % part.stat().st_size, usedforsecurity=False)
    with part.open("rb") as stream:
        while piece := stream.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
