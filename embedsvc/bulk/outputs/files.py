"""Files that are there when they are whole, and the small ones beside an output."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from embedsvc.bulk.about import About
from embedsvc.errors import BulkError


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file that takes the place of `path` once it is written. Raises `BulkError`."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_names(path.parent)
    except OSError as error:
        raise BulkError(f"{path}: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_names(folder: Path) -> None:
    """Have the folder on the disk too: what the file replaces may be needed no more."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(path: Path, what: str) -> Path:
    """The file that tells more about an output: out.npy.rows.jsonl beside out.npy."""
    return path.with_name(f"{path.name}.{what}")


def write_about(path: Path, about: About) -> None:
    """Write out.npy.about.json."""
    with replacing(beside(path, "about.json")) as file:
        file.write(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")


def read_about(path: Path) -> About:
    """What `write_about` wrote. Raises `BulkError`."""
    file = beside(path, "about.json")
    try:
        return decode_about(path, file.read_bytes())
    except OSError as error:
        raise BulkError(f"{file}: {error.strerror}") from None


def decode_about(path: Path, written: bytes | None) -> About:
    """What is written in, or beside, an output. Raises `BulkError`."""
    try:
        return msgspec.json.decode(written or b"", type=About)
    except msgspec.MsgspecError:
        raise BulkError(f"{path}: is no output of embedsvc embed") from None
