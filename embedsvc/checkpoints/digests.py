"""Digests of files, kept for the next start: those of weights take as long as all else of a load.

A file is taken for the one that was read if nothing says otherwise: its place on the disk, its
size, and the times of its last write and of its last change of any kind. Programs can set the first
of these times, and not the second.
"""

import hashlib
import logging
import os
import time
from functools import lru_cache
from pathlib import Path

from embedsvc.errors import CardsError
from embedsvc.system.home import cache_home
from embedsvc.system.kept import read_kept, write_kept

NAME = "digests.json"
LARGE = 1 << 20
"""Smaller files are read each time."""
RECENT_SECONDS = 10.0
"""A file that was changed less than so long ago may change again, and its times stay the same."""
MOST = 256
"""How many digests are kept: those that were found last."""
MOST_BYTES = 1 << 18
"""A file that is longer was not written here."""
Identity = tuple[int, int, int, int, int]
"""What tells a file from others, and from itself once it has changed: see `_identity`."""
log = logging.getLogger(__name__)


def sha256(file: Path) -> str:
    """The file's digest in hexadecimal; computed anew only if the file has changed.

    Raises `OSError`.
    """
    return _sha256(file.absolute(), _identity(file))


@lru_cache(maxsize=1024)
def _sha256(file: Path, identity: Identity) -> str:
    keeps = identity[2] >= LARGE and os.name == "posix"  # elsewhere the times say other things
    path = _kept_in() if keeps else None
    known = _read(path) if path else {}
    if str(file) in known and known[str(file)][0] == identity:
        return known[str(file)][1]
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if path is not None and _rests(file, identity):
        known.pop(str(file), None)
        known[str(file)] = (identity, digest)
        _write(path, dict(list(known.items())[-MOST:]))
    return digest


def _identity(file: Path) -> Identity:
    """Its device, its number there, its size, and when it was last written and changed (ns)."""
    at = file.stat()
    return at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns


def _rests(file: Path, identity: Identity) -> bool:
    """Whether a file is as it was, and has been so for a while."""
    return _identity(file) == identity and time.time() - max(identity[3:]) / 1e9 > RECENT_SECONDS


def _kept_in() -> Path | None:
    """The file of kept digests; None if nobody has a home here."""
    try:
        return cache_home() / NAME
    except CardsError:
        return None


def _read(path: Path) -> dict[str, tuple[Identity, str]]:
    """What is kept; nothing if it cannot be read."""
    try:
        return read_kept(path, dict[str, tuple[Identity, str]], MOST_BYTES) or {}
    except (OSError, ValueError) as error:
        log.info("%s: %s; files are read anew", path, error)
        return {}


def _write(path: Path, known: dict[str, tuple[Identity, str]]) -> None:
    try:
        write_kept(path, known)
    except OSError as error:  # as where the disk may only be read
        log.info("%s: %s; files will be read anew", path, error.strerror)
