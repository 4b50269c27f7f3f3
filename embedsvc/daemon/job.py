"""What a manager keeps running, and how it fares."""

from dataclasses import dataclass
from pathlib import Path

from embedsvc.exits import EXIT_MODEL, EXIT_SETTING, EXIT_USAGE, EXITS

NAME = "embedsvc"
DESCRIPTION = "embedsvc, an OpenAI-compatible embedding server"

HOPELESS = (EXIT_USAGE, EXIT_SETTING, EXIT_MODEL)
"""Those that starting it again will not cure."""


@dataclass(frozen=True, slots=True)
class Job:
    """The server as a service; paths are absolute."""

    command: tuple[str, ...]
    environment: Path
    """Its settings and keys, a line each, readable by the user alone."""
    system: bool
    """Whether it is of the whole machine rather than of one user."""
    user: str | None
    """Who runs it, system-wide; None: its manager makes a user up, or it is not system-wide."""
    home: Path
    """Of whoever installs it."""
    port: int
    stop_seconds: int
    """How long it may take to finish what is in flight."""
    writes: tuple[Path, ...] = ()
    """Folders that its settings have it write to."""
    root: Path = Path("/")
    """Of the machine's own folders."""


@dataclass(frozen=True, slots=True)
class State:
    """How the service fares."""

    installed: bool
    running: bool = False
    pid: int | None = None
    last_exit: int | None = None
    """Exit code of the run before, if there was one that ended by itself."""
    last_signal: str | None = None
    """What killed the run before, if something did."""
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
