"""A bar on the terminal that shows the progress of a download or of loading."""

import sys

WIDTH = 30
STEPS = 200


class Bar:
    """Draws on standard error if that is a terminal. Elsewhere it does nothing."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = -1

    def show(self, done: int, total: int) -> None:
        """Draw it for so many bytes, of so many in all."""
        step = STEPS * done // total if total else STEPS
        if step == self._shown or not sys.stderr.isatty():
            return
        self._shown = step
        bar = ("#" * (WIDTH * step // STEPS)).ljust(WIDTH)
        line = f"\r{self._name} [{bar}] {done / 1e6:,.1f} of {total / 1e6:,.1f} MB "
        sys.stderr.write(line)
        sys.stderr.flush()

    def end(self) -> None:
        """Begin a new line, if anything was drawn."""
        if self._shown >= 0:
            sys.stderr.write("\n")
