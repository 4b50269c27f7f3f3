"""How far a run is: a bar on a terminal, elsewhere a line every half minute."""

import time
from collections.abc import Callable
from typing import TextIO

BAR = 24
BAR_SECONDS = 0.1
LINE_SECONDS = 30.0


class Progress:
    """Writes to a stream. It is called from one thread at a time."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._shown = clock()
        self._first: tuple[float, float] | None = None
        self._bar = ""

    def update(
        self, rows: int, bad: int, share: float | None, seconds: float, before: int = 0
    ) -> None:
        """Show that so many rows are done, some of them bad, and that share of the input, if known.

        `seconds` is how long the run has taken. `before` is how many of the rows were done by
        earlier runs.
        """
        if share is not None and self._first is None:
            self._first = seconds, share  # the share that earlier runs did is not part of the rate
        now = self._clock()
        if now - self._shown < (BAR_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._shown = now
        parts = [f"{rows:,} rows", f"{(rows - before) / seconds:,.0f}/s"]
        if share is not None and self._first is not None:
            parts.insert(0, f"{share:4.0%}")
            gained = share - self._first[1]
            if gained > 0:
                left = (seconds - self._first[0]) * (1 - share) / gained
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
        """Write a line that stays above the bar."""
        bar = self._bar
        self._draw("")
        self._stream.write(line + "\n")
        self._draw(bar)

    def close(self) -> None:
        """Remove the bar."""
        self._draw("")

    def _draw(self, bar: str) -> None:
        if self._bar or bar:
            self._stream.write(f"\r\x1b[K{bar}")
        self._stream.flush()
        self._bar = bar


def _clock_time(seconds: float) -> str:
    """Seconds as hours, minutes and seconds.

    >>> _clock_time(75), _clock_time(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
