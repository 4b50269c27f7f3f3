"""Cards for models that have none in the file, made of the names that clients ask for."""

import re
from pathlib import Path

from embedsvc.bounds import MODEL_NAME
from embedsvc.catalog.cards import AdHocCard, Card
from embedsvc.catalog.names import spelled

REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
"""A name of Hugging Face's hub, as it allows them."""


def ad_hoc_card(model: str, root: Path) -> Card | None:
    """A card for a model that has none; None if the name is not one of a folder or a repository.

    A name that begins with "./" or "/" is of a folder, which must be in `root`. Two names of one
    folder make equal cards. It looks at the disk, so it is not for the event loop.
    """
    name = spelled(model) if len(model) <= MODEL_NAME else ""
    if name.startswith(("./", "/")):
        folder = _inside(root, name)
        if folder is not None:
            inner = folder.relative_to(root.resolve()).as_posix()
            identity = f"./{inner}"
            if identity.isprintable() and len(identity) <= MODEL_NAME:
                return AdHocCard(id=identity, path=folder)
    elif REPOSITORY.fullmatch(name) and ".." not in name:
        return AdHocCard(id=name, repo=name)
    return None


def _inside(root: Path, name: str) -> Path | None:
    """The folder of that name in `root`, links followed. None if it is elsewhere or no folder."""
    try:
        folder = (root / name).resolve()
        inside = folder.is_relative_to(root.resolve()) and folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, links that lead in a circle
        return None
    return folder if inside else None
