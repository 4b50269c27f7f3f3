"""`embedsvc doctor` as a test runs it, on a machine without a service."""

import socket
from pathlib import Path

import pytest

from embedsvc import cli
from embedsvc.daemon.spec import State


class Doctor:
    """Runs it in a home of its own, with a cards file, at a port that is free."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.cards = home / "models.toml"
        self.code = 0
        self._capture = capture

    def lines(self, *options: str) -> list[str]:
        """What it prints; `code` is then its exit code."""
        if "--port" not in options:
            options = (*options, "--port", str(free_port()))
        self.code = cli.main(["doctor", "--models", str(self.cards), *options])
        return self._capture.readouterr().out.splitlines()

    def line(self, what: str, *options: str) -> str:
        """The line about something, and its hint."""
        lines = self.lines(*options)
        (number,) = [i for i, line in enumerate(lines) if line[7:].startswith(f"{what}: ")]
        hinted = number + 1 < len(lines) and "->" in lines[number + 1]
        return " ".join(line.strip() for line in lines[number : number + 1 + hinted])


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class FakeManager:
    name, file = "systemd", Path("/etc/unit")

    def __init__(self, state: State) -> None:
        self._state = state

    def state(self) -> State:
        return self._state
