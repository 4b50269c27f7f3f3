"""From a card to a local folder: a path, an installed package, or a download from the hub."""

import hashlib
import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import Event

from embedsvc.catalog.cards import Card
from embedsvc.errors import CheckpointError

Told = Callable[[int, int], None]
"""Told the bytes done, and those there are to do."""


def find_checkpoint(
    card: Card,
    told: Told | None = None,
    stop: Event | None = None,
    *,
    download: bool = True,
) -> Path:
    """The folder with the card's files, downloaded if it must be, and may be.

    `told` is told how far a download is; it ends once `stop` is set.

    Raises `CheckpointError` that names the card and every place looked at, `Stopped`.
    """
    looked: list[str] = []
    folder = _path(card, looked) or _package(card, looked)
    if folder is None:
        folder = _hub(card, looked, download, told, stop)
    if folder is None:
        raise CheckpointError(f"model `{card.id}`: no files; {'; '.join(looked)}")
    return folder


def is_here(card: Card) -> bool:
    """Whether the card's files are on this disk, so that nobody has to be asked for them."""
    if _path(card, []) or _package(card, []):
        return True
    if card.repo is None:
        return False
    from embedsvc.checkpoints import hub

    return hub.kept(card.repo, card.revision) is not None


def _path(card: Card, looked: list[str]) -> Path | None:
    if card.path is None:
        return None
    if card.path.is_dir():
        return _snapshot(card.id, card.path)
    looked.append(f"no folder {card.path}")
    return None


def _snapshot(model: str, folder: Path) -> Path:
    """The folder, or the files in it if it is a repository's in the hub's cache: those of its main
    branch, or the only ones there are. Raises `CheckpointError` if neither can be told."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir() or (folder / "config.json").exists():
        return folder
    each = [entry for entry in snapshots.iterdir() if entry.is_dir()]
    main = folder / "refs" / "main"
    if main.is_file():
        with main.open("rb") as stream:
            commit = stream.read(100).decode(errors="replace").strip()
        each = [entry for entry in each if entry.name == commit] or each
    if len(each) != 1:
        raise CheckpointError(
            f"model `{model}`: {folder}: is a repository of the hub's cache with {len(each)} "
            "commits: give the `path` of one in its folder `snapshots`"
        )
    return each[0]


def _package(card: Card, looked: list[str]) -> Path | None:
    """The folder inside an installed package, which is found but never imported."""
    if card.package is None:
        return None
    name, _, inside = card.package.partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    for root in (spec and spec.submodule_search_locations) or ():
        folder = Path(root, inside)
        if folder.is_dir():
            return folder
    looked.append(f"no installed package with {card.package}")
    return None


def _hub(
    card: Card, looked: list[str], download: bool, told: Told | None, stop: Event | None
) -> Path | None:
    if card.repo is None:
        return None
    # Imported here: it takes longer to import than a small model takes to load.
    from embedsvc.checkpoints import hub

    try:
        return hub.find(card.repo, card.revision, download=download, told=told, stop=stop)
    except hub.HubError as error:
        looked.append(f"repository {card.repo} {error}")
        return None


def sha256(file: Path) -> str:
    """The file's digest in hexadecimal; computed anew only if the file has changed."""
    status = file.stat()
    return _sha256(file, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(file: Path, _inode: int, _size: int, _modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
