"""The tensors of a file that torch.save wrote: a zip archive, whose pickle says what is where.

The numbers lie uncompressed in the archive, so they are read from their place in the file when they
are needed, as those of safetensors are. Of the archive no more is trusted than what agrees with the
file, and of the pickle only what `torch_pickle` knows: nothing in it is called or imported.
"""

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from embedsvc.bounds import TORCH_GAPS, TORCH_PICKLE
from embedsvc.checkpoints.file_kinds import kind_of
from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.tensor_files import DTYPES, Entry
from embedsvc.checkpoints.torch_pickle import BadPickle, Storage, View, read_state_dict
from embedsvc.checkpoints.zip_members import BEGINNING, Archive, BadArchive

SUFFIXES = (".bin", ".pt")
"""How the names of torch's files end."""
LONGEST_WORD = 100
"""Bytes of the member that says in which order bytes are."""
TAR_MARK = slice(257, 262)
CONVERT = (
    "; convert it, where torch is installed: "
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file({{k: v.clone().contiguous() for k, v in {load}.items()}}, 'model.safetensors')\""
)
LOAD = "torch.load('{name}', 'cpu', weights_only=True)"
LOAD_SCRIPT = "torch.jit.load('{name}', 'cpu').state_dict()"


def read_torch_entries(model: str, file: Path) -> list[Entry]:
    """The tensors of a file of torch's.

    Raises `CheckpointError` if it is damaged, or holds anything but a plain state dict.
    """
    files = Files(model, file.parent)
    name = file.name if re.fullmatch(r"[\w.-]+", file.name, re.ASCII) else "FILE"
    with files.open(file.name) as stream:
        try:
            _check_kind(stream, name)
            archive = Archive(stream)
            tensors = read_state_dict(_pickle(archive, name))
            entries = _Storages(file, archive).entries(tensors)
            _check_gaps(entries, name)
            return entries
        except BadArchive as error:
            raise files.error(file.name, str(error)) from None
        except BadPickle as error:
            problem = f"holds no plain state dict: {error}{_convert(LOAD, name)}"
            raise files.error(file.name, problem) from None


def _check_kind(stream: BinaryIO, name: str) -> None:
    """Raise `BadArchive` if a file does not begin as an archive does."""
    beginning = stream.read(512)
    if beginning.startswith(BEGINNING):
        return
    if beginning.startswith(b"\x80") or beginning[TAR_MARK] == b"ustar":
        raise BadArchive(f"is in the format of torch before 1.6{_convert(LOAD, name)}")
    raise BadArchive(kind_of(beginning) or "is no file of torch's")


def _pickle(archive: Archive, name: str) -> bytes:
    """The pickle of an archive. Raises `BadArchive` if it is none of tensors alone."""
    inside = _prefix(archive)
    script = (f"{inside}constants.pkl", f"{inside}code/")
    if any(member.startswith(script) for member in archive.members):
        raise BadArchive(f"is a TorchScript program{_convert(LOAD_SCRIPT, name)}")
    order = archive.members.get(f"{inside}byteorder")
    stated = archive.read(order, LONGEST_WORD) if order else b"little"
    if stated != b"little":
        raise BadArchive(f"has its bytes in the order {stated!r}{_convert(LOAD, name)}")
    return archive.read(archive.members[f"{inside}data.pkl"], TORCH_PICKLE)


def _prefix(archive: Archive) -> str:
    """The folder that all members are in, whose name torch makes of the file's first one."""
    found = [name for name in archive.members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(found) != 1:
        raise BadArchive(f"has {len(found)} members data.pkl, and is no file of torch's")
    return found[0].removesuffix("data.pkl")


def _convert(load: str, name: str) -> str:
    """What to do about a file that is not read."""
    return CONVERT.format(load=load.format(name=name))


def _check_gaps(entries: list[Entry], name: str) -> None:
    """Raise `BadArchive` if a tensor takes much more memory to be read than it has."""
    for entry in entries:
        gaps = entry.span * entry.itemsize - entry.nbytes
        if gaps > TORCH_GAPS:
            raise BadArchive(
                f"has {gaps} bytes between the numbers of tensor `{entry.stored[:100]}`, "
                f"over {TORCH_GAPS}{_convert(LOAD, name)}"
            )


class _Storages:
    """The members of an archive in which the numbers of tensors are."""

    def __init__(self, file: Path, archive: Archive) -> None:
        self._file = file
        self._archive = archive
        self._folder = f"{_prefix(archive)}data/"
        self._known: dict[str, tuple[Storage, int]] = {}

    def entries(self, tensors: dict[str, View]) -> list[Entry]:
        """Where each tensor lies."""
        return [self._entry(name, tensor) for name, tensor in tensors.items()]

    def _entry(self, name: str, tensor: View) -> Entry:
        size = np.dtype(DTYPES[tensor.storage.dtype]).itemsize
        offset = self._begin(tensor.storage, size) + tensor.offset * size
        strides = None
        if not _is_plain(tensor):  # that of a single row is never taken, and may be any
            pairs = zip(tensor.shape, tensor.strides, strict=True)
            strides = tuple(stride if size > 1 else 0 for size, stride in pairs)
        return Entry(self._file, name, tensor.storage.dtype, tensor.shape, offset, strides)

    def _begin(self, storage: Storage, size: int) -> int:
        """Where the bytes of a storage begin in the file, which several tensors may share."""
        if storage.key not in self._known:
            member = self._archive.members.get(f"{self._folder}{storage.key}")
            if member is None or member.size != storage.count * size:
                found = f"{member.size} bytes" if member else "none"
                raise BadArchive(
                    f"has {found} of its storage {storage.key[:100]!r}, "
                    f"which has {storage.count} numbers of {size} bytes"
                )
            self._known[storage.key] = storage, self._archive.offset(member)
        known, begin = self._known[storage.key]
        if known != storage:
            raise BadArchive(f"says two things of its storage {storage.key[:100]!r}")
        return begin


def _is_plain(tensor: View) -> bool:
    """Whether the numbers of a tensor follow each other, the last dimension first."""
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size != 1 and stride != step:
            return 0 in tensor.shape
        step *= size
    return True
