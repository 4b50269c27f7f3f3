"""JSON Lines: `{"id": 1, "text": "", "embedding": []}`, with out.jsonl.about.json beside it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.bulk.about import About
from embedsvc.bulk.outputs.files import read_about, replacing, write_about
from embedsvc.bulk.rows import to_json
from embedsvc.errors import BulkError

ROWS = 1024
"""Read back at a time."""


class _Vector(msgspec.Struct):
    embedding: list[float]


def encode(rows: Sequence[dict[str, Any]], vectors: NDArray[Any]) -> bytes:
    """The rows' lines."""
    return b"".join(
        b'%b,"embedding":%b}\n'
        % (to_json(row)[:-1], orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
        for row, vector in zip(rows, vectors, strict=True)
    )


def finish(path: Path, blocks: Callable[[], Iterable[bytes]], about: About) -> None:
    """Put the lines one after the other."""
    write_about(path, about)
    with replacing(path) as file:
        file.writelines(blocks())


class JsonlIndex:
    """See `Index`."""

    def __init__(self, path: Path) -> None:
        self.about = read_about(path)
        self._path = path

    def blocks(self) -> Iterator[NDArray[Any]]:
        decoder = msgspec.json.Decoder(_Vector)
        with self._path.open("rb") as file:
            try:
                while lines := list(islice(file, ROWS)):
                    yield np.array([decoder.decode(line).embedding for line in lines], np.float32)
            except (msgspec.MsgspecError, ValueError) as error:
                raise BulkError(f"{self._path}: {error}") from None

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return pick(self._path, numbers)


def pick(path: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The objects on lines of these numbers, from 0, without their vectors."""
    wanted = set(numbers)
    found: dict[int, dict[str, Any]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number in wanted:
                found[number] = msgspec.json.decode(line)
                found[number].pop("embedding", None)
    return [found[number] for number in numbers]
