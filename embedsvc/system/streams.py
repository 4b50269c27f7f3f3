"""Standard streams, which may be closed, full, or of an encoding that lacks letters."""

import io
import os
import sys
from contextlib import suppress
from typing import Any


def open_streams() -> None:
    """Open closed streams on the null device, so that no file or socket gets their numbers.

    Letters that the output's encoding lacks are printed as escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # a new file gets the lowest free number
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    output: Any = sys.stdout
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="backslashreplace")


def end_output() -> None:
    """Flush the output. If that fails, see that Python does not try it again when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # ValueError: somebody closed it
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def complain(text: str) -> None:
    """Write lines to standard error. If nobody can read them, nothing happens."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
