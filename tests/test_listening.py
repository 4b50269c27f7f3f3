"""Which sockets are listened at."""

import errno
import socket

import pytest

from embedsvc.errors import AddressError
from embedsvc.settings import Settings
from embedsvc.web.connections import listening
from embedsvc.web.connections.listening import Address, addresses, bound


class Machine:
    """Sockets of a machine that has some addresses, where others took some ports."""

    def __init__(self, *has: str, taken: dict[str, set[int]] | None = None) -> None:
        self.has = has
        self.taken = taken or {}
        self.free = iter(range(40000, 60000))
        self.open: list[Socket] = []

    def socket(self, family: int, kind: int) -> "Socket":
        return Socket(self)


class Socket:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.at: tuple[str, int] = ("", 0)
        machine.open.append(self)

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.open.remove(self)

    def setsockopt(self, *_: object) -> None: ...

    def bind(self, place: tuple[str, int]) -> None:
        host, port = place[:2]
        if host not in self._machine.has:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        port = port or next(self._machine.free)
        if port in self._machine.taken.get(host, set()):
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.at = (host, port)

    def getsockname(self) -> tuple[str, int]:
        return self.at


BOTH = [
    Address(socket.AF_INET, ("127.0.0.1", 0)),
    Address(socket.AF_INET6, ("::1", 0, 0, 0)),
]


def at(port: int) -> list[Address]:
    return [Address(each.family, (each.place[0], port, *each.place[2:])) for each in BOTH]


def places(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, wanted: list[Address]
) -> list[tuple[str, int]]:
    monkeypatch.setattr(listening.socket, "socket", machine.socket)
    return [listener.getsockname() for listener in bound(wanted)]


def test_localhost_is_both_loopbacks_whatever_the_machine_s_files_say() -> None:
    assert [each.place[:2] for each in addresses("localhost", 80)] == [
        ("127.0.0.1", 80),
        ("::1", 80),
    ]
    assert len(addresses("127.0.0.1", 80)) == 1


def test_both_get_one_port_that_is_free_at_both(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("127.0.0.1", "::1", taken={"::1": {40000, 40001}})
    assert places(monkeypatch, machine, BOTH) == [("127.0.0.1", 40002), ("::1", 40002)]
    assert len(machine.open) == 2  # those of the tries before are closed


@pytest.mark.parametrize("has", ["127.0.0.1", "::1"])
def test_a_loopback_that_is_not_there_is_done_without(
    monkeypatch: pytest.MonkeyPatch, has: str
) -> None:
    assert places(monkeypatch, Machine(has), at(8000)) == [(has, 8000)]


def test_none_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    with pytest.raises(OSError, match="Cannot assign"):
        places(monkeypatch, machine, at(8000))
    assert not machine.open


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1"])
def test_a_port_that_another_program_has_at_one_of_them_is_an_error(
    monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    machine = Machine("127.0.0.1", "::1", taken={taken: {8000}})
    monkeypatch.setattr(listening.socket, "socket", machine.socket)
    with (
        pytest.raises(
            AddressError, match="cannot listen on localhost:8000: Address already in use"
        ),
        listening.listening(Settings(port=8000)),
    ):
        pass
    assert not machine.open
