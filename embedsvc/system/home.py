"""The home of the user who runs this process, if there is one."""

from pathlib import Path

from embedsvc.errors import CardsError


def home() -> Path:
    """The home. Raises `CardsError` if HOME is not set and the system knows no home either."""
    try:
        return Path.home()
    except RuntimeError:
        raise CardsError("there is no home folder: set HOME") from None


def expanded(path: Path) -> Path:
    """The path with a home in place of `~` or `~user`. Raises `CardsError` if there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise CardsError(f"{path}: there is no such home") from None
