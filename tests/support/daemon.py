"""A fake launchd and a fake systemd. They take commands and remember what is loaded."""

import shlex
from collections.abc import Callable
from pathlib import Path

from embedsvc.daemon.actions import Actions, Answer
from embedsvc.daemon.launchd import Launchd
from embedsvc.daemon.spec import ServiceSpec
from embedsvc.daemon.systemd import Systemd

ENVIRONMENT = {
    "PLAIN": "8000",
    "PATH_LIKE": "/srv/a-b_c.d:/x",
    "SPACES": "one two  three ",
    "QUOTES": """it's "quoted" `so` """,
    "DOLLAR": "$HOME and \\ and %h",
    "HASH": "#no comment",
    "EMPTY": "",
    "UMLAUT": "Käse",
}
"""Settings of which some have to be quoted in an environment file."""


def job(
    home: Path,
    *,
    system: bool = False,
    user: str | None = None,
    port: int = 8000,
    writes: tuple[Path, ...] = (),
) -> ServiceSpec:
    folder = home / "etc" if system else home / ".config"
    return ServiceSpec(
        command=("/opt/embedsvc/bin/python", "-P", "-m", "embedsvc", "serve"),
        environment=folder / "embedsvc" / "environment",
        system=system,
        user=user,
        home=home,
        port=port,
        stop_seconds=45,
        writes=writes,
        root=home,
    )


class Recorder(Actions):
    """Records the commands that change something, and gets answers from a function."""

    def __init__(self, answer: Callable[[tuple[str, ...]], Answer]) -> None:
        self.commands: list[str] = []
        self._answer = answer

    def ask(self, *command: str) -> Answer:
        return self._answer(command)

    def do(self, *command: str, allowed: tuple[int, ...] = (0,)) -> Answer:
        self.commands.append(shlex.join(command))
        return super().do(*command, allowed=allowed)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return any(condition() for _ in range(100))


class FakeLaunchd:
    """A launchd whose jobs stay for some questions after `bootout`. Meanwhile `bootstrap` fails."""

    def __init__(
        self, domain: str, *, lingers: int = 3, busy: int = 0, logged_in: bool = True
    ) -> None:
        self.loaded: dict[str, str] = {}
        self.running: set[str] = set()
        self._domain = domain
        self._lingers = lingers
        self._leaving: dict[str, int] = {}
        self._busy = busy
        self._logged_in = logged_in

    def __call__(self, command: tuple[str, ...]) -> Answer:
        assert command[0] == "launchctl"
        return getattr(self, command[1])(*command[2:])

    def print(self, target: str) -> Answer:
        if target in self._leaving:
            self._leaving[target] -= 1
            if not self._leaving[target]:
                del self._leaving[target], self.loaded[target]
        if target not in self.loaded:
            return Answer(113, "Could not find service")
        state = "running" if target in self.running else "not running"
        pid = "\tpid = 4711\n" if target in self.running else ""
        inner = "\tendpoints = {\n\t\tstate = active\n\t}\n"
        return Answer(0, f"{target} = {{\n{inner}\tstate = {state}\n{pid}\tlast exit code = 3\n}}")

    def enable(self, target: str) -> Answer:
        return Answer(0, "")

    def bootout(self, target: str) -> Answer:
        assert target in self.loaded
        self.running.discard(target)
        self._leaving[target] = self._lingers
        return Answer(36, "Boot-out failed: 36: Operation now in progress")

    def bootstrap(self, domain: str, plist: str) -> Answer:
        assert domain == self._domain
        if not self._logged_in:
            return Answer(125, "Bootstrap failed: 125: Domain does not support specified action")
        target = f"{domain}/{Path(plist).stem}"
        if target in self.loaded or self._busy:
            self._busy = max(0, self._busy - 1)
            return Answer(5, "Bootstrap failed: 5: Input/output error")
        assert Path(plist).is_file()
        self.loaded[target] = plist
        return Answer(0, "")

    def kickstart(self, target: str) -> Answer:
        assert target in self.loaded
        self.running.add(target)
        return Answer(0, "")


class FakeSystemd:
    """A systemd that reads its unit on `daemon-reload`, and starts it if it can."""

    def __init__(self, folder: Path, *, exit_code: int = 0, lingers: bool = True) -> None:
        self.unit = folder / "embedsvc.service"
        self.loaded = self.enabled = self.running = False
        self._exit_code = exit_code
        self._lingers = lingers

    def __call__(self, command: tuple[str, ...]) -> Answer:
        if command[0] == "loginctl":
            return Answer(0, "yes" if self._lingers else "no")
        words = [word for word in command[1:] if word != "--user"]
        match words[0]:
            case "show-environment":
                return Answer(0, "")
            case "daemon-reload":
                self.loaded = self.unit.is_file()
            case "enable":
                assert self.loaded
                self.enabled = True
            case "disable":
                self.enabled = self.running = False
            case "start" | "restart":
                assert self.loaded
                self.running = not self._exit_code
                return Answer(1 if self._exit_code else 0, "Job failed." if self._exit_code else "")
            case "stop":
                self.running = False
            case "show":
                state = "active" if self.running else "inactive"
                load = "loaded" if self.loaded else "not-found"
                return Answer(
                    0,
                    f"LoadState={load}\nActiveState={state}\nMainPID=4711\n"
                    f"ExecMainStatus={self._exit_code}",
                )
            case "reset-failed":
                return Answer(1, "not loaded")
            case other:
                raise AssertionError(other)
        return Answer(0, "")


def launchd(
    home: Path, fake: FakeLaunchd, *, system: bool = False, user: str | None = None
) -> tuple[Launchd, list[str]]:
    """A service kept by a fake launchd, and the commands that it is given."""
    machine = Recorder(fake)
    return Launchd(machine, job(home, system=system, user=user), uid=501), machine.commands


def systemd(home: Path, fake: FakeSystemd, *, system: bool = False) -> tuple[Systemd, list[str]]:
    """A service kept by a fake systemd, and the commands that it is given."""
    machine = Recorder(fake)
    return Systemd(machine, job(home, system=system)), machine.commands


def units(home: Path) -> Path:
    """Where a user's units are."""
    return home / ".config/systemd/user"
