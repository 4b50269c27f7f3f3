"""Folders that a service may not read though its user may, and what to do about it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

KEPT = ("Documents", "Desktop", "Downloads", "Library/Mobile Documents", "Library/CloudStorage")
"""Folders of a home that macOS keeps programs out of until their user has said otherwise, which
launchd's jobs cannot ask for. The fourth is iCloud Drive; in the fifth are other clouds' drives."""
VOLUMES = Path("/Volumes")
"""Where macOS has external disks and those of other machines, which it keeps as well."""
HOMES = ("home", "root", "Users", "run/user")
"""Folders of homes, which a unit of the system hides from its program."""


class Place(NamedTuple):
    """A file or a folder that a service reads."""

    what: str
    """In words: `its program`, `EMBEDSVC_MODELS`."""
    path: Path


def kept_by_macos(places: Iterable[Place], home: Path, python: Path) -> list[str]:
    """What to say of places that a job of launchd may not read; one text for each folder.

    `python` is the program that would need the permission to.
    """
    found: dict[Path, list[Place]] = {}
    for place in places:
        folder = _kept(_real(place.path), _real(home))
        if folder is not None:
            found.setdefault(folder, []).append(place)
    return [
        f"macOS lets no service read {folder}, and there {_are(inside)}: it would fail, and be "
        "started again for ever. Move that elsewhere, to a folder of its own in your home or to "
        "/opt, and install again; or allow it in System Settings > Privacy & Security > Full Disk "
        f"Access, for {_real(python)}"
        for folder, inside in found.items()
    ]


def kept_from_made_up_users(places: Iterable[Place]) -> list[str]:
    """What to say of places that the user whom systemd makes up for a service cannot read."""
    hidden = [place for place in places if not open_to_all(_real(place.path))]
    if not hidden:
        return []
    why = "the user whom systemd makes up cannot read what is in a home or closed to others, as"
    cure = "Move that to /etc/embedsvc or /opt, or say with --user who runs it"
    return [f"{why} {_are(hidden)}. {cure}"]


def open_to_all(path: Path) -> bool:
    """Whether everybody can come to a place, and it is not in a home, which the unit hides.

    Of one that is not there yet, the folders above it count.
    """
    if any(path.is_relative_to(f"/{part}") for part in HOMES):
        return False
    try:
        there = [each for each in (path, *path.parents) if each.exists()]
        return all(each.stat().st_mode & (0o001 if each.is_dir() else 0o004) for each in there)
    except OSError:
        return False


def _kept(path: Path, home: Path) -> Path | None:
    """The folder that macOS keeps and the path is in, if there is one."""
    for name in KEPT:
        if path.is_relative_to(home / name):
            return home / name
    if path.is_relative_to(VOLUMES) and path != VOLUMES:
        return VOLUMES / path.relative_to(VOLUMES).parts[0]
    return None


def _are(places: Iterable[Place]) -> str:
    """The places as the end of a sentence.

    >>> _are([Place("its program", Path("/x")), Place("the model `m`", Path("/y"))])
    'are its program (/x) and the model `m` (/y)'
    """
    named = [f"{place.what} ({place.path})" for place in places]
    *first, last = named
    return f"are {', '.join(first)} and {last}" if first else f"is {last}"


def _real(path: Path) -> Path:
    """The path with links followed; as it is where that fails."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path
