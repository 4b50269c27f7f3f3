"""`embedsvc service`: a server that launchd or systemd starts, and starts again."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from embedsvc.commands.arguments import describe
from embedsvc.commands.settings import add_settings
from embedsvc.daemon.actions import MARKER, DryRun, Machine
from embedsvc.daemon.detect import (
    Manager,
    check_program,
    environment_file,
    manager,
    system_user,
)
from embedsvc.daemon.environment import read_environment, updated
from embedsvc.daemon.job import Job
from embedsvc.errors import CardsError
from embedsvc.exits import EXIT_BAD
from embedsvc.probe import Place, probe
from embedsvc.settings import Settings, read_settings, variable
from embedsvc.system.home import home
from embedsvc.system.text_files import read_text

EXAMPLES = """\
  embedsvc service install --port 8000
  embedsvc service status
  embedsvc service logs --follow
"""

ACTIONS = {
    "install": "write its files, enable it and start it; done again, with other settings",
    "uninstall": "stop it and remove its files, but not its settings and its logs",
    "start": "start it",
    "stop": "answer what is in flight and stop, until it is started or the machine is",
    "restart": "stop it and start it, for settings that were changed",
    "status": "say whether it runs and answers; the exit code is 1 if not",
    "logs": "print its logs",
}
USER_HELP = "with --system: who runs it; default: a user made up by systemd, on a Mac who ran sudo"
STOP_MARGIN = 15
"""Seconds to end in, beyond those for what is in flight."""
READY_SECONDS = 60.0
"""How long a start is watched; a model may have to be downloaded, which takes longer."""


def add(parser: argparse.ArgumentParser) -> None:
    """Its actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, allow_abbrev=False)
        option = action.add_argument
        option("--system", action="store_true", help="of the whole machine, from boot on; as root")
        if name == "logs":
            option("--lines", type=int, default=100, help="so many; default: 100", metavar="N")
            option("--follow", action="store_true", help="and those to come")
        elif name != "status":
            option("--dry-run", action="store_true", help="print what would be written and run")
        if name == "install":
            option("--user", help=USER_HELP, metavar="NAME")
            group = action.add_argument_group(
                "settings", "as of `embedsvc serve`; EMBEDSVC_* variables count too, and are kept"
            )
            add_settings(group.add_argument)
        lines = [line for line in EXAMPLES.splitlines() if f" {name}" in line]
        example = lines[0] if lines else f"  embedsvc service {name}"
        describe(action, f"{example}\n\n{text[0].upper()}{text[1:]}.\n")


def run(given: argparse.Namespace) -> int:
    """Do it. Raises `SetupError`."""
    dry: bool = vars(given).get("dry_run", False)
    machine = DryRun(print) if dry else Machine()
    if given.action == "install":
        return _install(given, machine, dry=dry)
    file = environment_file(system=given.system)
    settings = read_settings({}, read_environment(file)) if _readable(file) else None
    service = manager(machine, _job(settings or Settings(), file, system=given.system))
    match given.action:
        case "start" | "restart":
            service.start() if given.action == "start" else service.restart()
            return 0 if dry else _await(service, settings, machine)
        case "stop":
            service.stop()
        case "uninstall":
            service.uninstall()
            if file.exists():
                print(f"kept: {file}")
        case "logs":
            command = service.logs(given.lines, follow=given.follow)
            return EXIT_BAD if subprocess.run(command, check=False).returncode else 0
        case _:
            return _status(service, settings)
    return 0


def _install(given: argparse.Namespace, machine: Machine, *, dry: bool) -> int:
    file = environment_file(system=given.system)
    text = read_text(file) if _readable(file) else _new_environment()
    values = (read_environment(file) if _readable(file) else {}) | _given(vars(given))
    settings = read_settings({}, values)
    user = system_user(given.user) if given.system else None
    job = _job(settings, file, system=given.system, user=user)
    check_program(machine, job)
    service = manager(machine, job)
    changed = updated(text, _given(vars(given)))
    if changed != text or not file.exists():
        # systemd reads it as root; on a Mac the server does, as its user.
        machine.write(file, changed, 0o600, user if sys.platform == "darwin" else None)
    notes = service.install()
    print(f"settings: {file}\nservice: {service.file}")
    for note in notes:
        print(f"note: {note}")
    return 0 if dry else _await(service, settings, machine)


def _await(service: Manager, settings: Settings | None, machine: Machine) -> int:
    """Wait until it is ready, or has ended, and print how it fares."""
    if settings is not None:
        place = _place(settings)

        def settled() -> bool:
            return probe(place).who == "ready" or not service.state().running

        machine.until(settled, READY_SECONDS)
    return _status(service, settings)


def _status(service: Manager, settings: Settings | None) -> int:
    """Print how it fares."""
    state = service.state()
    print(f"embedsvc: {state.in_words()}")
    if not state.running:
        return EXIT_BAD
    if settings is None:
        return 0
    place = _place(settings)
    found = probe(place)
    print(f"{place}: {found.said}")
    return 0 if found.who == "ready" else EXIT_BAD


def _place(settings: Settings) -> Place:
    uds = str(settings.uds) if settings.uds else None
    return Place(settings.host, settings.port, uds, tls=settings.tls_cert is not None)


def _job(settings: Settings, file: Path, *, system: bool, user: str | None = None) -> Job:
    return Job(
        command=(sys.executable, "-P", "-m", "embedsvc", "serve"),
        environment=file,
        system=system,
        user=user,
        home=home(),
        port=settings.port,
        stop_seconds=int(settings.shutdown_seconds) + STOP_MARGIN,
        writes=tuple(folder for folder in (settings.cache_folder,) if folder),
    )


def _given(options: Mapping[str, Any]) -> dict[str, str]:
    """The settings that were given, as variables; paths absolute, for a service has no folder."""
    parsed = read_settings(options, os.environ)
    values: dict[str, str] = {}
    for field in msgspec.structs.fields(Settings):
        name = variable(field.name)
        value = options.get(field.name)
        text = str(value) if value is not None else os.environ.get(name)
        if text:
            path = getattr(parsed, field.name)
            values[name] = str(path.absolute()) if isinstance(path, Path) else text
    here = Path("models.toml")
    if "EMBEDSVC_MODELS" not in values and here.is_file():
        values["EMBEDSVC_MODELS"] = str(here.absolute())  # what `serve` would take here
    return values


def _new_environment() -> str:
    lines = [
        f"# {MARKER}, and yours to edit:",
        "# `embedsvc serve --help` lists the settings, `embedsvc service restart` takes them in.",
    ]
    return "".join(f"{line}\n" for line in lines)


def _readable(file: Path) -> bool:
    """Whether there is a file; and one that may be read, or it is said that it may not."""
    try:
        return file.is_file() and os.access(file, os.R_OK)
    except PermissionError as error:
        raise CardsError(f"{file}: {error.strerror}") from None
