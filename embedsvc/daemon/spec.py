"""What a manager keeps running, and what state it is in."""

from dataclasses import dataclass
from pathlib import Path

from embedsvc.exits import EXIT_MODEL, EXIT_SETTING, EXIT_USAGE, EXITS

NAME = "embedsvc"
DESCRIPTION = "embedsvc, an OpenAI-compatible embedding server"

HOPELESS = (EXIT_USAGE, EXIT_SETTING, EXIT_MODEL)
"""Exit codes after which starting the server again will not help."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """The server as a service. Paths are absolute."""

    command: tuple[str, ...]
    environment: Path
    """The file with its settings and keys, which only the user can read."""
    system: bool
    """Whether it belongs to the whole machine rather than to one user."""
    user: str | None
    """Who runs a service of the whole machine. None: the manager makes a user up."""
    home: Path
    """The home of the user who installs it."""
    port: int
    stop_seconds: int
    """How long it may take to answer what is in flight."""
    writes: tuple[Path, ...] = ()
    """Folders that it writes to because of its settings."""
    root: Path = Path("/")
    """The folder that holds the machine's own: another one in tests."""


@dataclass(frozen=True, slots=True)
class State:
    """What state the service is in."""

    installed: bool
    running: bool = False
    pid: int | None = None
    last_exit: int | None = None
    """The exit code of the last run, if it ended by itself."""
    last_signal: str | None = None
    """The signal that killed the last run, if one did."""
    restarts: int = 0
    """How often its manager started it again by itself, as far as that is known."""

    def in_words(self) -> str:
        if not self.installed:
            return "not installed"
        last = ""
        if self.restarts:
            times = "once" if self.restarts == 1 else f"{self.restarts} times"
            last = f"; started again {times}, `embedsvc service logs` says why"
        if self.last_exit:
            why = EXITS.get(self.last_exit)
            last += f"; it last ended with {self.last_exit}" + (f": {why}" if why else "")
        if self.last_signal:
            last += f"; it was last killed: {self.last_signal}"
        if self.running:
            return f"running, pid {self.pid}{last}"
        return f"installed, not running{last}"
