"""Small files of what can be found out again: read with suspicion, written whole or not at all."""

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def read_kept(path: Path, kind: type[T], most_bytes: int) -> T | None:
    """What a file has in JSON; None if it is not there.

    Raises `OSError`; `ValueError` if it is longer than `most_bytes`, or has something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError:
        return None
    if len(content) > most_bytes:
        raise ValueError(f"longer than {most_bytes >> 10} KiB")
    return msgspec.json.decode(content, type=kind)


def write_kept(path: Path, value: Any) -> None:
    """Write a value in JSON, for this user alone. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
