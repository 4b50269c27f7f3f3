"""Repositories of a hub on this disk, which lie where and as huggingface_hub keeps them, so that
programs share them. In the folder of a repository:

    blobs/CHECKSUM          a file, by its checksum
    blobs/CHECKSUM.part     as much of it as has come, to go on from
    snapshots/COMMIT/NAME   a link to the blob that has that name in that commit
    refs/REVISION           the commit that a branch or a tag was when it was downloaded
    complete/COMMIT         ours: the names of the files of a commit, once all are here
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import (
    constants,
    snapshot_download,  # pyright: ignore[reportUnknownVariableType] - of unused parameters
)
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from embedsvc.checkpoints.download import File

PATTERNS = [
    *("*.json", "*.txt", "*.model", "artifact.metadata"),
    *("model*.safetensors", "*/model*.safetensors", "weights*.safetensors"),
    "sparse_linear.pt",
]
"""The files that are needed, as huggingface_hub is asked for them."""
TORCH_PATTERNS = ["pytorch_model*.bin", "*/pytorch_model*.bin"]
"""Those that are needed where there are no safetensors."""
NOT_NEEDED = frozenset({"onnx", "openvino", "coreml", "gguf", "original"})
"""Folders with the same model in formats that are not read here."""
COMMIT = re.compile("[0-9a-f]{40}")
REVISION = re.compile(r"\w[\w.+-]{0,99}(/\w[\w.+-]{0,99}){0,7}", re.ASCII)


def repo_folder(repo: str) -> Path:
    """The folder of a repository, whether it is there or not.

    >>> repo_folder("intfloat/e5-small-v2").name
    'models--intfloat--e5-small-v2'
    """
    return Path(constants.HF_HUB_CACHE, "--".join(("models", *repo.split("/"))))


def is_here(repo: str) -> bool:
    """Whether any file of a repository is here."""
    return "/" in repo and (repo_folder(repo) / "blobs").is_dir()


def is_plain(revision: str) -> bool:
    """Whether a revision's name can be a file's below a folder: an adapter's file may name any."""
    return REVISION.fullmatch(revision) is not None


def kept(repo: str, revision: str | None) -> Path | None:
    """The snapshot of a revision that was downloaded as a whole, by this program."""
    root = repo_folder(repo)
    revision = revision or constants.DEFAULT_REVISION
    if not is_plain(revision):
        return None
    try:
        commit = revision
        if not COMMIT.fullmatch(revision):
            with (root / "refs" / revision).open(encoding="ascii") as file:
                commit = file.read(100)
    except (OSError, ValueError):
        return None
    return complete(root, commit) if COMMIT.fullmatch(commit) else None


def kept_by_others(repo: str, revision: str | None) -> Path | None:
    """The snapshot that another program downloaded; huggingface_hub knows of gaps in it."""
    folder = _by_others(repo, revision, PATTERNS)
    if folder is not None and not any(folder.rglob("*.safetensors")):
        folder = _by_others(repo, revision, [*PATTERNS, *TORCH_PATTERNS])
    return folder


def _by_others(repo: str, revision: str | None, patterns: list[str]) -> Path | None:
    try:
        found = snapshot_download(
            repo,
            revision=revision,
            local_files_only=True,
            allow_patterns=patterns,
            ignore_patterns=[f"{name}/*" for name in NOT_NEEDED],
        )
        return Path(found)
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def complete(root: Path, commit: str) -> Path | None:
    """The snapshot of a commit, if all of its files are here."""
    folder = root / "snapshots" / commit
    try:
        names = _names_file(root, commit).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return folder if all((folder / name).is_file() for name in names) else None


def link_snapshot(root: Path, commit: str, files: Sequence[File]) -> Path:
    """Link the files under their names, and note that the commit is complete. Returns its snapshot.

    A program that reads there meanwhile finds every file that was there: links that are right stay,
    and others are exchanged in one step.
    """
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    new = root / "link.new"
    for file in files:
        link = folder / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(root / "blobs" / file.checksum, link.parent)
        if not (link.is_symlink() and os.readlink(link) == target):  # noqa: PTH115 - as it is written
            new.unlink(missing_ok=True)
            new.symlink_to(target)
            new.replace(link)
    _write(_names_file(root, commit), "\n".join(file.name for file in files))
    return folder


def note_revision(root: Path, revision: str, commit: str) -> None:
    """Note which commit a branch or a tag is."""
    _write(root / "refs" / revision, commit)


def size_of_parts(repo: str) -> int:
    """Bytes that have come of files which are not here as a whole."""
    return sum(part.stat().st_size for part in (repo_folder(repo) / "blobs").glob("*.part"))


def delete(repo: str) -> int:
    """Delete all of a repository that is here. Returns the bytes that it took."""
    root = repo_folder(repo)
    size = sum(blob.stat().st_size for blob in (root / "blobs").iterdir())
    shutil.rmtree(root)
    return size


def _names_file(root: Path, commit: str) -> Path:
    return root / "complete" / commit


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)
