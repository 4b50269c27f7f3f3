"""The service on this machine: which manager keeps it, who runs it, where its settings are."""

import os
import pwd
import sys
from pathlib import Path
from typing import Protocol

from embedsvc.daemon.actions import Actions
from embedsvc.daemon.launchd import Launchd
from embedsvc.daemon.places import open_to_all
from embedsvc.daemon.spec import NAME, ServiceSpec, State
from embedsvc.daemon.systemd import Systemd
from embedsvc.system.home import home


class Manager(Protocol):
    """launchd or systemd."""

    name: str
    file: Path
    """The file that defines the service."""

    def check(self) -> None: ...
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
    if sys.platform != "linux":
        actions.refuse(f"there is no service manager for {sys.platform} here")
    return Systemd(actions, spec)


def environment_file(*, system: bool) -> Path:
    """The file with the settings of the service, of the whole machine or of this user."""
    return (Path("/etc") if system else home() / ".config") / NAME / "environment"


def system_user(actions: Actions, named: str | None) -> str | None:
    """The user who is to run a service of the whole machine. None: systemd makes one up.

    Raises `ServiceError` if there is no such user, or none for launchd.
    """
    if named is None and sys.platform == "darwin":
        named = os.environ.get("SUDO_USER")
        if named is None:
            actions.refuse("say with --user who is to run the service")
            named = "USER"
    elif named is not None and not _is_user(named):
        actions.refuse(f"there is no user {named}")
    return named


def check_program(actions: Actions, spec: ServiceSpec) -> None:
    """Raises `ServiceError` unless whoever runs the service can run its program."""
    python = spec.command[0]
    answer = actions.ask("env", "-i", python, "-P", "-c", "import embedsvc")
    if answer.status:
        said = f": {answer.text}" if answer.text else ""
        actions.refuse(f"embedsvc is not installed for {python}{said}")
    if spec.system and spec.user is None:
        for folder in (Path(sys.prefix), Path(sys.base_prefix)):
            if not open_to_all(folder.resolve()):
                actions.refuse(
                    f"the service's user cannot read {folder}: install embedsvc where everybody "
                    "can, as in /opt/embedsvc, or say with --user who is to run it"
                )


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
