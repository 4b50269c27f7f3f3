"""The service on this machine: which manager keeps it, who runs it, where its settings are."""

import os
import pwd
import sys
from pathlib import Path
from typing import Protocol

from embedsvc.daemon.actions import Actions
from embedsvc.daemon.launchd import Launchd
from embedsvc.daemon.spec import NAME, ServiceSpec, State
from embedsvc.daemon.systemd import Systemd
from embedsvc.errors import ServiceError
from embedsvc.system.home import home

HOMES = ("home", "root", "Users", "run/user")
"""Folders of homes, which a unit of the system hides from its program."""


class Manager(Protocol):
    """launchd or systemd."""

    name: str
    file: Path
    """The file that defines the service."""

    def install(self) -> list[str]: ...
    def uninstall(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def restart(self) -> None: ...
    def state(self) -> State: ...
    def logs(self, lines: int, *, follow: bool) -> tuple[str, ...]: ...


def manager(actions: Actions, spec: ServiceSpec) -> Manager:
    """The manager that this machine has. Raises `ServiceError` if it has neither."""
    if sys.platform == "darwin":
        return Launchd(actions, spec)
    if sys.platform == "linux":
        return Systemd(actions, spec)
    raise ServiceError(f"there is no service manager for {sys.platform} here")


def environment_file(*, system: bool) -> Path:
    """The file with the settings of the service, of the whole machine or of this user."""
    return (Path("/etc") if system else home() / ".config") / NAME / "environment"


def system_user(named: str | None) -> str | None:
    """The user who is to run a service of the whole machine. None: systemd makes one up.

    Raises `ServiceError` if there is no such user, or none for launchd.
    """
    if named is None and sys.platform == "darwin":
        named = os.environ.get("SUDO_USER")
        if named is None:
            raise ServiceError("say with --user who is to run the service")
    if named is not None:
        try:
            pwd.getpwnam(named)
        except KeyError:
            raise ServiceError(f"there is no user {named}") from None
    return named


def check_program(actions: Actions, spec: ServiceSpec) -> None:
    """Raises `ServiceError` unless whoever runs the service can run its program."""
    python = spec.command[0]
    answer = actions.ask("env", "-i", python, "-P", "-c", "import embedsvc")
    if answer.status:
        raise ServiceError(f"embedsvc is not installed for {python}: {answer.text}")
    if spec.system and spec.user is None:
        for folder in (Path(sys.prefix), Path(sys.base_prefix)):
            if not _open_to_all(folder.resolve()):
                raise ServiceError(
                    f"the service's user cannot read {folder}: install embedsvc where everybody "
                    "can, as in /opt/embedsvc, or say with --user who is to run it"
                )


def _open_to_all(folder: Path) -> bool:
    """Whether everybody can read a folder, and it is not in a home, which the unit hides."""
    if any(folder.is_relative_to(f"/{part}") for part in HOMES):
        return False
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))
