"""Files that appear only once they are complete, and the small files beside an output."""

import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from embedsvc.bulk.manifest import Manifest
from embedsvc.errors import BulkError
from embedsvc.system.text_files import read_text

BESIDE = ("partial", "rejects.jsonl", "rows.jsonl", "about.json")
"""What the names of files end in that a run may write beside its output."""


def own_files(path: Path) -> list[Path]:
    """All files that a run with that output may write or replace."""
    return [path, *(beside(path, what) for what in BESIDE)]


def check_own_files(path: Path) -> None:
    """Raises `BulkError` if one of these files could not be written at the end of a run."""
    longest = max((_unfinished(own).name for own in own_files(path)), key=len)
    with suppress(OSError, AttributeError):  # no folder, or Windows
        if len(os.fsencode(longest)) > os.pathconf(path.parent, "PC_NAME_MAX"):
            raise BulkError(f"{path}: the name is too long: files beside it have longer ones")
    for own in own_files(path):
        try:
            status = own.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BulkError(f"{own}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise BulkError(f"{own} is in the way: it is no file")


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file that replaces `path` once it is completely written. Raises `BulkError`."""
    unfinished = _unfinished(path)
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_names(path.parent)
    except OSError as error:
        raise BulkError(f"{path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")


def _sync_names(folder: Path) -> None:
    """Write the folder to the disk too: the file's new name is there for good only then."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def beside(path: Path, what: str) -> Path:
    """A file that belongs to an output and lies beside it.

    >>> beside(Path("out.npy"), "rows.jsonl").name
    'out.npy.rows.jsonl'
    """
    return path.with_name(f"{path.name}.{what}")


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest beside an output, as `out.npy.about.json`."""
    with replacing(beside(path, "about.json")) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def read_manifest(path: Path) -> Manifest:
    """Read what `write_manifest` wrote. Raises `BulkError`."""
    return decode_manifest(path, read_text(beside(path, "about.json"), BulkError).encode())


def decode_manifest(path: Path, written: bytes | None) -> Manifest:
    """The manifest, from the JSON in an output or beside it. Raises `BulkError`."""
    try:
        return msgspec.json.decode(written or b"", type=Manifest)
    except (ValueError, RecursionError):  # errors of msgspec's are among them
        raise BulkError(f"{path}: is no output of embedsvc embed") from None


def remove(path: Path) -> None:
    """Delete a file, if it is there. Raises `BulkError`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise BulkError(f"{path}: {error.strerror}") from None
