"""`embedsvc doctor`: what is on this machine, what is wrong with it, and what would help."""

import argparse
import os
from collections.abc import Iterator

from embedsvc.commands.settings import add_settings
from embedsvc.daemon.detect import environment_file
from embedsvc.daemon.environment import read_environment
from embedsvc.diagnosis.computing import backend, cores, memory, room, versions
from embedsvc.diagnosis.finding import Finding, ok, wrong
from embedsvc.diagnosis.models import Place, models
from embedsvc.diagnosis.surroundings import address, folders, service
from embedsvc.errors import CardsError
from embedsvc.serving.model_memory import weight_limit
from embedsvc.settings import Settings, read_settings

EXAMPLES = """\
  embedsvc doctor
  embedsvc doctor --models ./models.toml --port 9000

Looks, and changes nothing. The exit code is 1 if something is wrong.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_settings(parser.add_argument, ("models", "backend", "host", "port", "max_memory"))


def run(args: argparse.Namespace) -> int:
    """Print each finding as soon as it is there. Returns 1 if something is wrong."""
    bad = 0
    for finding in diagnose(args):
        print(f"{finding.mark:6} {finding.what}: {finding.seen}", flush=True)
        if finding.hint:
            print(f"{'':6} -> {finding.hint}")
        bad += finding.mark == "WRONG"
    print(f"\n{bad} wrong" if bad else "\nall is well")
    return 1 if bad else 0


def diagnose(args: argparse.Namespace) -> Iterator[Finding]:
    """Look at everything, one thing after the other."""
    yield from versions()
    settings = Settings()
    try:
        environ, sources = _environment()
        settings = read_settings(vars(args), environ)
        yield ok("settings", f"from {' and '.join(sources)}")
    except CardsError as error:
        yield wrong("settings", error, "what follows is by the defaults")
    ops = yield from backend(settings.backend, settings.dtype)
    yield from cores()
    yield from memory()
    place = None
    if ops is not None:
        place = Place(ops, settings.dtype, weight_limit(ops, settings.max_memory))
        yield from room(ops, place.memory)
    yield from models(settings.models, place)
    yield from folders(settings)
    yield from address(settings)
    yield from service(system=False)
    yield from service(system=True)


def _environment() -> tuple[dict[str, str], list[str]]:
    """The variables of an installed service, then of this process, and where they are from."""
    for system in (False, True):
        file = environment_file(system=system)
        if os.access(file, os.R_OK):
            return read_environment(file) | os.environ, ["this environment", str(file)]
    return dict(os.environ), ["this environment"]
