"""Opens a checkpoint's files: only regular ones, and none larger than one of its name may be.

Strangers make checkpoints, so a file is looked at before it is read. Errors name the model and the
file.
"""

import codecs
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from embedsvc.bounds import CHECKPOINT_JSON, TENSOR_INDEX, TOKENIZER_FILE
from embedsvc.checkpoints.file_kinds import kind_of
from embedsvc.errors import CheckpointError
from embedsvc.wording.msgspec_errors import plain_types

T = TypeVar("T")
SIZES = {
    "model.safetensors.index.json": TENSOR_INDEX,
    "pytorch_model.bin.index.json": TENSOR_INDEX,
    "tokenizer.json": TOKENIZER_FILE,
    "vocab.txt": TOKENIZER_FILE,
    "vocab.json": TOKENIZER_FILE,
    "merges.txt": TOKENIZER_FILE,
    "spiece.model": TOKENIZER_FILE,
    "sentencepiece.bpe.model": TOKENIZER_FILE,
    "tokenizer.model": TOKENIZER_FILE,
}
"""The most bytes that files of these names may have; all others may have `CHECKPOINT_JSON`."""
OTHERS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
"""What may lie in place of a file and must not be opened, since reading it could wait for ever."""


def as_object(value: Any) -> dict[str, Any] | None:
    """A value of JSON, if it is an object."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def as_array(value: Any) -> list[Any] | None:
    """A value of JSON, if it is an array."""
    return cast(list[Any], value) if isinstance(value, list) else None


class Files:
    """Reads the files of one folder. Its errors name the model and the file."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model = model
        self.folder = folder

    def inside(self, path: str) -> "Files":
        """The files of a folder in this one."""
        return Files(self.model, self.folder / path)

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        return os.path.lexists(self.folder / name)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where there is no such file."""
        return self._load(name, dict[str, Any]) or {}

    def read_as(self, name: str, kind: type[T]) -> T | None:
        """JSON of that type; None where there is no such file."""
        return self._load(name, kind)

    def read_bytes(self, name: str) -> bytes | None:
        """All of a file; None where there is no such file.

        Raises `CheckpointError` if it is no regular file, or too large.
        """
        most = SIZES.get(name, CHECKPOINT_JSON)
        if not self.has(name):
            return None
        with self.open(name) as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise self.error(name, f"is larger than {most >> 20} MiB, which is all that is read")
        return content

    def beginning(self, name: str) -> bytes:
        """The first bytes of a file, for `kind_of`; those of JSON if there is no such file."""
        if not self.has(name):
            return b"{"
        with self.open(name) as stream:
            return stream.read(100)

    @contextmanager
    def open(self, name: str) -> Generator[BinaryIO]:
        """A regular file, or a link to one, open for reading.

        Raises `CheckpointError` that says what it is instead of a file, or why it cannot be read.
        """
        with self._opened(name) as stream:
            try:
                yield stream
            except OSError as error:
                raise self.error(name, str(error.strerror)) from None

    def error(self, name: str, message: str) -> CheckpointError:
        """The error to raise about a file."""
        return CheckpointError(f"model `{self.model}`: {self.folder / name}: {message}")

    def _opened(self, name: str) -> BinaryIO:
        path = self.folder / name
        try:
            self._check_regular(name, path.stat().st_mode)  # some devices mind being opened
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            stream = os.fdopen(handle, "rb")
        except OSError as error:
            raise self.error(name, str(error.strerror)) from None
        except ValueError:
            raise self.error(name, "is no name of a file") from None
        self._check_regular(name, os.fstat(handle).st_mode)  # the one that was opened
        return stream

    def _check_regular(self, name: str, mode: int) -> None:
        if not stat.S_ISREG(mode):
            found = next((kind for is_it, kind in OTHERS if is_it(mode)), "no file")
            raise self.error(name, f"is {found}, and must be a file")

    def _load(self, name: str, kind: Any) -> Any:
        content = self.read_bytes(name)
        if content is None:
            return None
        try:
            return msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8), type=kind)
        except RecursionError:
            raise self.error(name, "is nested too deeply") from None
        except (msgspec.MsgspecError, UnicodeError) as error:
            problem = kind_of(content[:100]) or plain_types(str(error))
            raise self.error(name, problem) from None
