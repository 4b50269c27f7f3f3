"""From a card to a local folder: a path, an installed package, or a download from the hub."""

import importlib.util
from pathlib import Path
from threading import Event
from typing import Any

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.digests import sha256
from embedsvc.checkpoints.progress import Progress
from embedsvc.checkpoints.tensor_files import weight_files
from embedsvc.errors import CheckpointError


def find_checkpoint(
    card: Card,
    progress: Progress | None = None,
    stop: Event | None = None,
    *,
    download: bool = True,
) -> Path:
    """The folder with the card's files, downloaded if they are not here and `download` allows it.

    Raises `CheckpointError` that names the card and every place that was looked at; `Stopped` once
    `stop` is set, which ends a download.
    """
    looked: list[str] = []
    folder = _path(card, looked) or _package(card, looked)
    if folder is None:
        folder = _hub(card, looked, download, progress, stop)
    if folder is None:
        raise CheckpointError(f"model `{card.id}`: no files; {'; '.join(looked)}")
    return folder


def is_here(card: Card) -> bool:
    """Whether the card's files are on this disk, so that nothing has to be downloaded."""
    if _path(card, []) or _package(card, []):
        return True
    if card.repo is None:
        return False
    from embedsvc.checkpoints import hub_cache  # takes long to import

    return hub_cache.kept(card.repo, card.revision) is not None


def look_ahead(card: Card) -> tuple[dict[str, Any], int]:
    """config.json of files that are not here, and how many bytes of weights there are, by the hub.

    Raises `CheckpointError`.
    """
    if card.repo is None:
        find_checkpoint(card)  # raises, with all places that were looked at
        return {}, 0
    from embedsvc.checkpoints import hub  # takes long to import

    try:
        return hub.look_ahead(card.repo, card.revision)
    except hub.HubError as error:
        raise CheckpointError(f"model `{card.id}`: repository {card.repo} {error}") from None


def _path(card: Card, looked: list[str]) -> Path | None:
    if card.path is None:
        return None
    if card.path.is_dir():
        return _snapshot(card.id, card.path)
    looked.append(f"no folder {card.path}")
    return None


def _snapshot(model: str, folder: Path) -> Path:
    """The folder itself, or a snapshot in it if it is a repository's in the hub's cache.

    That is the snapshot of its main branch, or the only one. Raises `CheckpointError` if there are
    several and none is the main branch's.
    """
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
    """The folder inside an installed package; the package is not imported."""
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
    card: Card, looked: list[str], download: bool, progress: Progress | None, stop: Event | None
) -> Path | None:
    if card.repo is None:
        return None
    from embedsvc.checkpoints import hub  # takes longer to import than a small model to load

    try:
        return hub.find(card.repo, card.revision, download=download, progress=progress, stop=stop)
    except hub.HubError as error:
        looked.append(f"repository {card.repo} {error}")
        return None


def digests(model: str, folder: Path) -> list[str]:
    """Digests of the weights in a folder, of each of their shards, and of its config.json."""
    files = [*weight_files(model, folder), folder / "config.json"]
    return [sha256(file) for file in files if file.is_file()]


def check_sha256(card: Card, file: Path, expected: str) -> None:
    """Raise `CheckpointError` unless a file has that digest."""
    try:
        found = sha256(file)
    except OSError as error:
        raise CheckpointError(f"model `{card.id}`: {file}: {error.strerror}") from None
    if found != expected:
        raise CheckpointError(
            f"model `{card.id}`: {file} is not the file the card names: "
            f"its sha256 is {found}, the card says {expected}"
        )
