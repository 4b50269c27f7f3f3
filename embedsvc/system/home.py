"""The home of the user who runs this process, if there is one, and its folder for caches."""

import os
from pathlib import Path

from embedsvc.errors import CardsError


def home() -> Path:
    """The home. Raises `CardsError` if HOME is not set and the system knows no home either."""
    try:
        return Path.home()
    except RuntimeError:
        raise CardsError("there is no home folder: set HOME") from None


def cache_home() -> Path:
    """Where this user keeps what can be made again. Raises `CardsError` if there is no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache") / "embedsvc"


def expanded(path: Path) -> Path:
    """The path with a home in place of `~` or `~user`. Raises `CardsError` if there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise CardsError(f"{path}: there is no such home") from None
