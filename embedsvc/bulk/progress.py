"""How far a run is: on a terminal as a bar, elsewhere as a line now and then."""

import time
from collections.abc import Callable
from typing import TextIO

BAR = 24
BAR_SECONDS = 0.1
LINE_SECONDS = 30.0


class Progress:
    """Writes to a stream; called from one thread at a time."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._began = self._shown = clock()
        self._first: tuple[float, float] | None = None
        self._bar = ""

    def begin(self) -> None:
        """Count the time from now."""
        self._began = self._shown = self._clock()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._began

    def update(self, rows: int, bad: int, share: float | None) -> None:
        """So many rows are done by this run, and that share of the input, where it is known."""
        now = self._clock()
        if share is not None and self._first is None:
            self._first = now, share  # what was done before this run took no time in it
        if now - self._shown < (BAR_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._shown = now
        parts = [f"{rows:,} rows", f"{rows / max(now - self._began, 1e-9):,.0f}/s"]
        if share is not None and self._first is not None:
            parts.insert(0, f"{share:4.0%}")
            gained = share - self._first[1]
            if gained > 0:
                left = (now - self._first[0]) * (1 - share) / gained
                parts.append(f"{_clock_time(left)} left")
        if bad:
            parts.append(f"{bad:,} set aside")
        text = "  ".join(parts)
        if not self._terminal:
            self._stream.write(text + "\n")
            self._stream.flush()
            return
        if share is not None:
            full = round(share * BAR)
            text = f"[{'#' * full}{'.' * (BAR - full)}] {text}"
        self._draw(text)

    def say(self, line: str) -> None:
        """A line that stays."""
        bar = self._bar
        self._draw("")
        self._stream.write(line + "\n")
        self._draw(bar)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._draw("")

    def _draw(self, bar: str) -> None:
        if self._bar or bar:
            self._stream.write(f"\r\x1b[K{bar}")
        self._stream.flush()
        self._bar = bar


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
