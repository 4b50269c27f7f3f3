"""Where a person's own files are, if this process is of anybody who has a home."""

from pathlib import Path

from embedsvc.errors import CardsError


def home() -> Path:
    """The home. Raises `CardsError` if HOME is not set and the system knows of none."""
    try:
        return Path.home()
    except RuntimeError:
        raise CardsError("there is no home folder: set HOME") from None


def expanded(path: Path) -> Path:
    """The path with the home that `~` or `~user` stands for. Raises `CardsError` without one."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise CardsError(f"{path}: there is no such home") from None
