"""`embedsvc service`: have launchd or systemd start the server, and start it again if it ends."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from embedsvc.commands.arguments import complete_help
from embedsvc.commands.settings import add_settings
from embedsvc.daemon.actions import MARKER, Actions, DryRun
from embedsvc.daemon.detect import (
    Manager,
    check_program,
    environment_file,
    manager,
    system_user,
)
from embedsvc.daemon.environment import carried, read_environment, updated
from embedsvc.daemon.missing import warnings_of
from embedsvc.daemon.spec import ServiceSpec
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
DOWNLOADS = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
"""Variables with folders that models are downloaded to."""
STOP_MARGIN = 15
"""How many seconds the server has to end in, beyond those for what is in flight."""
READY_SECONDS = 60.0
"""How long to wait for a start. If a model has to be downloaded, it takes longer than that."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
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
                "settings",
                "as of `embedsvc serve`; EMBEDSVC_* variables count too, and are kept, as are "
                "those of the hub (HF_TOKEN, HF_HOME, ...), of proxies and of certificates",
            )
            add_settings(group.add_argument)
        lines = [line for line in EXAMPLES.splitlines() if f" {name}" in line]
        example = lines[0] if lines else f"  embedsvc service {name}"
        complete_help(action, f"{example}\n\n{text[0].upper()}{text[1:]}.\n")


def run(args: argparse.Namespace) -> int:
    """Run the action. Raises `SetupError`."""
    dry: bool = vars(args).get("dry_run", False)
    actions = DryRun(print) if dry else Actions()
    if args.action == "install":
        return _install(args, actions, dry=dry)
    file = environment_file(system=args.system)
    values = read_environment(file) if _readable(file, dry=dry) else None
    settings = None if values is None else read_settings({}, values)
    spec = _spec_of(settings or Settings(), values or {}, file, system=args.system)
    service = manager(actions, spec)
    match args.action:
        case "start" | "restart":
            service.start() if args.action == "start" else service.restart()
            return 0 if dry else _await(service, settings, actions)
        case "stop":
            service.stop()
        case "uninstall":
            service.uninstall()
            if file.exists():
                print(f"kept: {file}")
        case "logs":
            command = service.logs(args.lines, follow=args.follow)
            return EXIT_BAD if subprocess.run(command, check=False).returncode else 0
        case _:
            status = _status(service, settings)
            if status and settings is not None:
                _warn(spec, settings, values or {})
            return status
    return 0


def _install(args: argparse.Namespace, actions: Actions, *, dry: bool) -> int:
    file = environment_file(system=args.system)
    here = _readable(file, dry=dry)
    text = read_text(file) if here else _new_environment()
    chosen = _chosen(vars(args))
    values = (read_environment(file) if here else {}) | chosen
    settings = read_settings({}, values)
    user = system_user(actions, args.user) if args.system else None
    spec = _spec_of(settings, values, file, system=args.system, user=user)
    check_program(actions, spec)
    _warn(spec, settings, values)
    service = manager(actions, spec)
    service.check()
    changed = updated(text, chosen)
    if changed != text or not here:
        # systemd reads this file as root. On a Mac the server itself reads it, as its user.
        actions.write(file, changed, 0o600, user if sys.platform == "darwin" else None)
    notes = service.install()
    print(f"settings: {file}\nservice: {service.file}")
    for note in notes:
        print(f"note: {note}")
    return 0 if dry else _await(service, settings, actions)


def _warn(spec: ServiceSpec, settings: Settings, values: Mapping[str, str]) -> None:
    for warning in warnings_of(spec, settings, values):
        print(f"warning: {warning}")


def _await(service: Manager, settings: Settings | None, actions: Actions) -> int:
    """Wait until the service is ready or has ended, and print its state. Returns an exit code."""
    if settings is not None:
        place = _place(settings)

        def settled() -> bool:
            return probe(place).who == "ready" or not service.state().running

        actions.until(settled, READY_SECONDS)
    return _status(service, settings)


def _status(service: Manager, settings: Settings | None) -> int:
    """Print the state of the service. Returns an exit code."""
    state = service.state()
    print(f"embedsvc: {state.in_words()}")
    if not state.running:
        return EXIT_BAD
    if settings is None:
        return 0
    place = _place(settings)
    found = probe(place)
    print(f"{place}: {found.reason}")
    return 0 if found.who == "ready" else EXIT_BAD


def _place(settings: Settings) -> Place:
    uds = str(settings.uds) if settings.uds else None
    return Place(settings.host, settings.port, uds, tls=settings.tls_cert is not None)


def _spec_of(
    settings: Settings,
    values: Mapping[str, str],
    file: Path,
    *,
    system: bool,
    user: str | None = None,
) -> ServiceSpec:
    """`values` are the variables that the service has, or is to have."""
    writes = [settings.cache_folder, *(values.get(name) for name in DOWNLOADS)]
    return ServiceSpec(
        command=(sys.executable, "-P", "-m", "embedsvc", "serve"),
        environment=file,
        system=system,
        user=user,
        home=home(),
        port=settings.port,
        stop_seconds=int(settings.shutdown_seconds) + STOP_MARGIN,
        writes=tuple(Path(folder) for folder in writes if folder),
    )


def _chosen(options: Mapping[str, Any]) -> dict[str, str]:
    """The settings of the command line and the environment, and what else of that the server
    obeys, as variables.

    Paths become absolute, because a service has no folder of its own.
    """
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
        values["EMBEDSVC_MODELS"] = str(here.absolute())  # `serve` would use it in this folder
    return values | carried(os.environ)


def _new_environment() -> str:
    lines = [
        f"# {MARKER}, and yours to edit:",
        "# `embedsvc serve --help` lists the settings, `embedsvc service restart` takes them in.",
    ]
    return "".join(f"{line}\n" for line in lines)


def _readable(file: Path, *, dry: bool) -> bool:
    """Whether a file is there and may be read.

    Raises `CardsError` if its folder may not be. A dry run takes it for a file that is not there.
    """
    try:
        return file.is_file() and os.access(file, os.R_OK)
    except PermissionError as error:
        if dry:
            return False
        raise CardsError(f"{file}: {error.strerror}") from None
