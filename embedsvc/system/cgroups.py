"""How much processor time and memory Linux's control groups leave to this process.

Containers, systemd and Kubernetes set limits there. The limits of all groups count, from the
process's own up to the top of the mount. Version 2 has one tree of groups, version 1 has one for
each controller, and a machine may have both. What cannot be read, or makes no sense, counts as no
limit.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
UNLIMITED = 1 << 60
"""So many bytes are no limit. Version 1 writes "no limit" as the largest number of whole pages."""
ESCAPED = re.compile(r"\\([0-7]{3})")


class Limit(NamedTuple):
    """The lowest limit of one kind."""

    value: float
    """How many processors, as 1.5, or how many bytes."""
    file: Path
    """The file that says so."""


class Limits(NamedTuple):
    """Limits of both kinds, None where there is none."""

    cores: Limit | None
    memory: Limit | None


def read_limits(root: Path = ROOT) -> Limits:
    """The limits of this process. `root` is where /proc and /sys are, for tests."""
    return Limits(
        cores=_least(limit for group in _groups(root, "cpu") for limit in _cores(group)),
        memory=_least(limit for group in _groups(root, "memory") for limit in _memory(group)),
    )


def _least(limits: Iterable[Limit]) -> Limit | None:
    return min(limits, key=lambda limit: limit.value, default=None)


def _cores(group: Path) -> Iterator[Limit]:
    for quota, period in (
        (group / "cpu.max", None),
        (group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"),
    ):
        words = _words(quota) + (_words(period) if period else [])
        match [_number(word) for word in words]:
            case [int(microseconds), int(of)]:
                yield Limit(microseconds / of, quota)
            case _:
                pass


def _memory(group: Path) -> Iterator[Limit]:
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        for word in _words(group / name)[:1]:
            number = _number(word)
            if number is not None and number < UNLIMITED:
                yield Limit(number, group / name)
    # In version 1 this includes the limits of groups above a container, whose files it cannot see.
    words = _words(group / "memory.stat")
    for name, word in pairwise(words):
        number = _number(word)
        if name == "hierarchical_memory_limit" and number is not None and number < UNLIMITED:
            yield Limit(number, group / "memory.stat")


def _number(word: str) -> int | None:
    """A positive number; None for "max", -1, 0 and anything else.

    >>> _number("1024"), _number("max"), _number("0")
    (1024, None, None)
    """
    return int(word) if word.isascii() and word.isdigit() and len(word) < 20 and int(word) else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return []


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """For one controller, the folders of the process's group and of all groups above it."""
    own = _own_groups(root)
    for mount in _mounts(root):
        path = own.get(controller if mount.version == 1 else "")
        if path is None or (mount.version == 1 and controller not in mount.controllers):
            continue
        # A mount shows the tree below some group. Where the process is not below that group (its
        # path then begins with ..), the top of the mount is the group that its namespace was given.
        below = _below(path, mount.group)
        for part in (below, *below.parents):
            yield mount.folder / part


def _below(path: str, top: str) -> Path:
    """The way from a group down to another, empty if the other is not below it.

    >>> _below("/kubepods/pod1/box", "/kubepods").as_posix(), _below("/x", "/y").as_posix()
    ('pod1/box', '.')
    """
    parts, above = Path(path).parts[1:], Path(top).parts[1:]
    if ".." in parts or parts[: len(above)] != above:
        return Path()
    return Path(*parts[len(above) :])


def _own_groups(root: Path) -> dict[str, str]:
    """The path of the process's group for each controller of version 1, and for version 2 under
    ""."""
    found: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                found[controller] = parts[2]
    return found


class _Mount(NamedTuple):
    version: int
    group: str
    """The group at the top of the mount."""
    folder: Path
    controllers: frozenset[str]


def _mounts(root: Path) -> Iterator[_Mount]:
    """The mounts of control groups; see `mountinfo` in proc(5)."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        group, folder = _unescaped(fields[3]), _unescaped(fields[4])
        yield _Mount(
            version=1 if kind[0] == "cgroup" else 2,
            group=group,
            folder=root / folder.lstrip("/"),
            controllers=frozenset(kind[2].split(",")),
        )


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError:
        return []


def _unescaped(path: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 8)), path)
