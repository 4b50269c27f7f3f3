"""`embedsvc report` as tests run it: over a tiny model, with pauses in which no time passes."""

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from embedsvc.cli import main
from embedsvc.commands import report as command
from embedsvc.diagnosis.report import Report
from embedsvc.diagnosis.report.measure import WAIT_SECONDS, Clock


@dataclass
class Reporter:
    """Runs it. Everything is real but the pauses: a server, `verify`, the load."""

    folder: Path
    code: int = 0
    paused: list[float] = field(default_factory=list)
    interrupted_by: float | None = None
    """The pause in which SIGTERM comes, which ends it as Ctrl-C does."""

    def run(self, *options: str) -> Report:
        """The report, by its JSON. `code` is then the exit code."""
        file = self.folder / "report.json"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(command, "CLOCK", Clock(time.perf_counter, self._pause))
            words = ["report", "--seconds", "0.05", "--backend", "numpy", "--models"]
            cards = str(self.folder / "models.toml")
            self.code = main([*words, cards, "--json", str(file), *options])
        return msgspec.json.decode(file.read_bytes(), type=Report)

    def _pause(self, seconds: float) -> None:
        if seconds == self.interrupted_by:
            signal.raise_signal(signal.SIGTERM)
        if seconds not in (0, WAIT_SECONDS):
            self.paused.append(seconds)
