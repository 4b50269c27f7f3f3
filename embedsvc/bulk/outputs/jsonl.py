"""JSON Lines: `{"id": 1, "text": "", "embedding": []}`, with out.jsonl.about.json beside it."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from embedsvc.bulk.manifest import Manifest
from embedsvc.bulk.outputs.files import read_manifest, replacing, write_manifest
from embedsvc.bulk.outputs.index import Vectors
from embedsvc.bulk.rows import to_json
from embedsvc.errors import BulkError
from embedsvc.system.text_files import lines_of
from embedsvc.wording.msgspec_errors import plain_types

ROWS = 1024
"""How many rows are read at a time."""
MAX_LINE_BYTES = 64 << 20
"""The longest line that is read: a text, the columns that are carried along, and a vector."""


class _Vector(msgspec.Struct):
    embedding: list[float]


def encode(rows: Sequence[dict[str, Any]], vectors: Vectors) -> bytes:
    """The lines of some rows."""
    return b"".join(
        b'%b,"embedding":%b}\n'
        % (to_json(row)[:-1], orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY))
        for row, vector in zip(rows, vectors, strict=True)
    )


def write(path: Path, blocks: Callable[[], Iterable[bytes]], manifest: Manifest) -> None:
    """Write all lines, one after the other."""
    write_manifest(path, manifest)
    with replacing(path) as file:
        file.writelines(blocks())


class JsonlIndex:
    """See `Index`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)

    def blocks(self) -> Iterator[NDArray[Any]]:
        decoder = msgspec.json.Decoder(_Vector)
        vectors: list[NDArray[np.float32]] = []
        width = self.manifest.no_vectors.shape[1]
        with reading(self.path) as lines, np.errstate(over="ignore"):  # `search` refuses infinity
            for line in lines:
                vector = np.array(decoder.decode(line).embedding, np.float32)
                if vector.shape != (width,):
                    raise ValueError(f"a vector of {len(vector)}, not {width}")
                vectors.append(vector)
                if len(vectors) == ROWS:
                    yield np.stack(vectors)
                    vectors.clear()
        if vectors:
            yield np.stack(vectors)

    def rows(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        return pick(self.path, numbers)


@contextmanager
def reading(path: Path) -> Generator[Iterator[bytes]]:
    """The lines of a file, each of at most `MAX_LINE_BYTES`.

    Raises `BulkError`, also in place of a `ValueError` in the `with` block.
    """
    try:
        with path.open("rb") as file:
            yield (line or b"" for line in lines_of(file, MAX_LINE_BYTES))
    except OSError as error:
        raise BulkError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # errors of msgspec's are among them
        raise BulkError(f"{path}: is damaged: {plain_types(str(error))}") from None


def pick(path: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The objects on the lines with these numbers, from 0, without vectors. Raises `BulkError`."""
    needed = set(numbers)
    found: dict[int, dict[str, Any]] = {}
    with reading(path) as lines:
        for number, line in enumerate(lines):
            if number in needed:
                row = msgspec.json.decode(line, type=dict[str, Any])
                row.pop("embedding", None)
                found[number] = row
        if missing := needed - found.keys():
            raise ValueError(f"line {min(missing) + 1} is missing")
    return [found[number] for number in numbers]
