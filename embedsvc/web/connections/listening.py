"""The sockets that the server listens at: of an address, or of a path."""

import errno
import os
import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from embedsvc.errors import AddressError
from embedsvc.settings import Settings
from embedsvc.web.access import check_address

BACKLOG = 2048
LOOPBACKS = ("127.0.0.1", "::1")
"""What `localhost` means, whatever the machine's own files say."""
TRIES = 20
"""How often to look for a port that is free at all addresses."""
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""The errors that say that this machine lacks an address, or all addresses of its kind."""


class Address(NamedTuple):
    """An address to make a socket for."""

    family: socket.AddressFamily
    place: tuple[Any, ...]
    """The address as `bind` takes it: the host, the port, and for IPv6 two more."""


@contextmanager
def listening(settings: Settings) -> Generator[list[socket.socket]]:
    """Sockets that take clients from now on, so that they wait for the models to load.

    The first is the one to announce. Raises `AddressError`, `CardsError`.
    """
    with ExitStack() as stack:
        if settings.uds is not None:
            yield [stack.enter_context(_listening_at(settings.uds))]
            return
        host, port = settings.host, settings.port
        try:
            found = addresses(host, port)
            for address in found:
                check_address(str(address.place[0]), settings)
            listeners = bound(found)
            for listener in listeners:
                stack.enter_context(listener)
                listener.listen(BACKLOG)
        except OSError as error:
            raise AddressError(f"cannot listen on {host}:{port}: {error.strerror}") from None
        yield listeners


def addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host: both loopbacks of `localhost`, else the first one of the name.

    Raises `OSError`.
    """
    names = LOOPBACKS if host == "localhost" else (host,)
    found: list[Address] = []
    for name in names:
        try:
            family, _, _, _, place = socket.getaddrinfo(
                name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
        except UnicodeError:  # a part of it is empty or too long
            raise OSError(errno.EINVAL, "not the name of a host") from None
        found.append(Address(family, place))
    return found


def bound(found: list[Address]) -> list[socket.socket]:
    """A socket at each address, all at one port.

    Of several addresses, those that this machine lacks are left out. Raises `OSError`.
    """
    for _ in range(TRIES):
        try:
            return _bound(found)
        except OSError as error:
            if found[0].place[1] != 0 or error.errno != errno.EADDRINUSE:
                raise
            # The port that was free at the first address is taken at the second.
    return _bound(found)


def _bound(found: list[Address]) -> list[socket.socket]:
    port = found[0].place[1]
    listeners: list[socket.socket] = []
    with ExitStack() as stack:
        for family, place in found:
            try:
                listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((place[0], port, *place[2:]))
            except OSError as error:
                if error.errno not in ABSENT or (place is found[-1].place and not listeners):
                    raise
            else:
                listeners.append(listener)
                port = listener.getsockname()[1]
        stack.pop_all()
    return listeners


@contextmanager
def _listening_at(path: Path) -> Generator[socket.socket]:
    """A socket at a path, for this user and group. It replaces one that a dead server left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _answers(path):
            path.unlink()
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(f"cannot listen at {path}: {error.strerror or error}") from None
    mine = path.stat()
    with listener:
        try:
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(path.stat(), mine):
                    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(str(path)) != errno.ECONNREFUSED  # else nobody listens any more
