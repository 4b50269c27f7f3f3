"""One file from a hub to this disk: a cut download is gone on with, and the whole is checked."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic
from typing import NamedTuple

import httpx2
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType] - of an unused parameter
)

from embedsvc.bounds import HUB_UNSTATED_BYTES
from embedsvc.checkpoints.hub_client import BrokenAnswer, Refused, opened
from embedsvc.errors import Stopped

TRIES = 6
"""A download is given up after so many tries in a row that brought nothing."""
PAUSE_SECONDS = 0.5
"""The pause before the second try; before each further one it is twice as long."""
PIECE = 1 << 20
LEAST_RATE = 4096
"""Bytes per second that have to come of a file, since downloads have few threads."""
RATE_SECONDS = 60.0
"""Over how long that rate is looked at."""


class File(NamedTuple):
    """A file of a repository."""

    name: str
    size: int | None
    """Bytes; None if the hub does not say it."""
    checksum: str
    """In hexadecimal: sha256 of a file in Git LFS, of others the sha1 that git names them by."""


def part_of(blobs: Path, file: File) -> Path:
    """Where the part of a file lies that has come."""
    return blobs / f"{file.checksum}.part"


def fetch(url: str, file: File, blobs: Path, advance: Callable[[int], None], stop: Event) -> None:
    """Download a file into its blob, going on where an earlier try was cut.

    `advance` is called with the bytes that are here. Raises `BrokenAnswer` if the file is not the
    one that the hub lists, or comes too slowly; `Refused`, `httpx2.HTTPError`; `Stopped` once
    `stop` is set.
    """
    part = part_of(blobs, file)
    failures = 0
    rate = Rate(url, file)
    while True:
        here = part.stat().st_size if part.exists() else 0
        try:
            _stream(url, part, here, file, advance, rate)
            break
        except (httpx2.HTTPError, Refused) as error:
            if isinstance(error, Refused) and not _is_passing(error.status):
                raise
            came = part.exists() and part.stat().st_size > here
            failures = 0 if came else failures + 1
            if failures == TRIES:
                raise
            rate.add(0)
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


class Rate:
    """How fast a file comes, over all tries: a hub may also bring one byte with each."""

    def __init__(self, url: str, file: File) -> None:
        self._url = url
        self._file = file
        self._came = 0
        self._since = monotonic()

    def add(self, size: int) -> None:
        """Count bytes that came. Raises `BrokenAnswer` if they were too few for too long."""
        self._came += size
        seconds = monotonic() - self._since
        if seconds < RATE_SECONDS:
            return
        if self._came < LEAST_RATE * seconds:
            raise BrokenAnswer(
                f"comes too slowly from {httpx2.URL(self._url).host}: {self._came} bytes of "
                f"{self._file.name} in {seconds:.0f} seconds, and at least {LEAST_RATE} a second "
                "have to come; what came is kept, and the next try goes on behind it"
            )
        self._came, self._since = 0, monotonic()


def _stream(
    url: str, part: Path, here: int, file: File, advance: Callable[[int], None], rate: Rate
) -> None:
    """Add to a part of `here` bytes what is missing of the file. Raises what `fetch` does."""
    size = file.size
    if here == size and part.exists():
        return
    headers = build_hf_headers()
    resuming = size is not None and 0 < here < size
    if resuming:
        headers["Range"] = f"bytes={here}-"
    most = HUB_UNSTATED_BYTES if size is None else size
    with opened(url, headers) as answer:
        goes_on = resuming and answer.status_code == 206
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
                rate.add(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    if size is not None and here < size:
        raise httpx2.RemoteProtocolError("the connection was cut")


def _is_passing(status: int) -> bool:
    """Whether a refusal with that status may be over soon, so that another try is worth it."""
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
