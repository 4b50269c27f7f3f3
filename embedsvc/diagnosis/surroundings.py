"""Findings about what is around the server: its folders, its address, the service that runs it."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from embedsvc.daemon.actions import Actions
from embedsvc.daemon.detect import environment_file, manager
from embedsvc.daemon.environment import read_environment
from embedsvc.daemon.missing import hidden
from embedsvc.daemon.spec import HOPELESS, ServiceSpec
from embedsvc.diagnosis.finding import Finding, note, ok, wrong
from embedsvc.errors import CardsError, ServiceError
from embedsvc.probe import Found, Place, probe
from embedsvc.settings import Settings, read_settings
from embedsvc.system.home import home
from embedsvc.web.access import check_address
from embedsvc.web.connections.listening import addresses, bound

SCARCE = 1 << 30
"""With fewer free bytes on the disk, a download is likely to fail."""


def folders(settings: Settings) -> Iterator[Finding]:
    """The folders that the server writes to: downloads, vectors, the log."""
    from huggingface_hub.constants import HF_HUB_CACHE  # takes long to import

    yield _folder("downloads", Path(HF_HUB_CACHE))
    if settings.cache_folder is not None:
        yield _folder("cache folder", settings.cache_folder)
    if settings.log_file is not None:
        yield _folder("log folder", settings.log_file.parent)


def address(settings: Settings) -> Iterator[Finding]:
    """Whether the server can listen at its address, or who listens there already."""
    host, port = settings.host, settings.port
    where, tls = f"{host}:{port}", settings.tls_cert is not None
    if settings.uds is not None:
        yield _socket(settings.uds, probe(Place(host, port, str(settings.uds), tls)))
        return
    try:
        found_at = addresses(host, port)
        for each in found_at:
            check_address(str(each.place[0]), settings)
    except (OSError, CardsError) as error:
        yield wrong("address", f"{where}: {error}")
        return
    found = probe(Place(host, port, tls=tls))
    if found.who in ("ready", "not ready"):
        yield ok("address", f"embedsvc answers at {where}: {found.reason}")
        return
    if found.who == "other":
        yield wrong(
            "address", f"something else listens at {where}: {found.reason}", _listener(port)
        )
        return
    try:
        for listener in bound(found_at):
            listener.close()
    except OSError as error:
        hint = "ports below 1024 are root's" if isinstance(error, PermissionError) else ""
        yield wrong("address", f"{where} cannot be had: {error.strerror}", hint)
        return
    yield ok("address", f"{where} is free")


def service(*, system: bool) -> Iterator[Finding]:
    """Whether the service of the user, or of the whole machine, is well."""
    what = "system service" if system else "service"
    file = environment_file(system=system)
    job = ServiceSpec((), file, system, None, home(), port=0, stop_seconds=0)
    try:
        kept = manager(Actions(), job)
        state = kept.state()
    except ServiceError as error:
        yield note(what, str(error))
        return
    if not state.installed:
        yield ok(what, "not installed")
        return
    seen = f"{state.in_words()}; {kept.name}, {kept.file}"
    option = " --system" if system else ""
    if state.running or not (state.last_exit or state.last_signal):
        yield ok(what, seen)
    else:
        wants = "what is said here of settings and models may be why; then " * (
            state.last_exit in HOPELESS
        )
        yield wrong(what, seen, f"{wants}`embedsvc service logs{option}`")
    if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
        yield wrong(what, f"others may read {file}, where keys are", f"chmod 600 {file}")
    if sys.platform == "darwin" and not state.running and os.access(file, os.R_OK):
        with suppress(CardsError):  # of the settings, more is said elsewhere
            values = read_environment(file)
            for place in hidden(job, read_settings({}, values), values):
                yield wrong(what, place)


def _socket(path: Path, found: Found) -> Finding:
    """Whether the server can listen at a Unix socket, or who listens there already."""
    if found.who in ("ready", "not ready"):
        return ok("address", f"embedsvc answers at {path}: {found.reason}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return wrong("address", f"no socket can be made at {path}", "make its folder, or chown it")
    if path.exists() and not path.is_socket():
        return wrong("address", f"{path} is there, and no socket", "move it away")
    if found.who == "other":
        return wrong("address", f"something else listens at {path}: {found.reason}")
    return ok("address", f"{path} is free")


def _folder(what: str, folder: Path) -> Finding:
    """Whether there is room in a folder, or where it would be made, and it can be written to."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return wrong(what, f"{place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        return wrong(what, f"{folder} cannot be written", "chown it, or name another")
    free = shutil.disk_usage(place).free
    seen = f"{folder}, {free / 2**30:.1f} GiB free" + ("" if folder.exists() else ", not made yet")
    if free < SCARCE:
        return wrong(what, seen, "make room")
    return ok(what, seen)


def _listener(port: int) -> str:
    """How to find out who listens at a port."""
    command = f"ss -ltnp 'sport = :{port}'" if sys.platform == "linux" else f"lsof -i tcp:{port}"
    return f"`{command}` says who; or take another port with --port"
