"""A log file that may be moved away while it is written to, as newsyslog and logrotate do."""

import io
import os
import sys
from pathlib import Path
from threading import Lock

from embedsvc.errors import CardsError


class LogFile(io.TextIOBase):
    """Appends to the file that has this name now, which may not be the one of a moment ago."""

    _descriptor = -1
    """This value stays where the file cannot be opened, since the finaliser closes it even then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._descriptor = self._open()

    def write(self, text: str) -> int:
        data = text.encode("utf-8", errors="backslashreplace")
        with self._lock:
            if not self._is_in_place():
                before, self._descriptor = self._descriptor, self._open()
                os.close(before)
            while data:
                data = data[os.write(self._descriptor, data) :]
        return len(text)

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
        super().close()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _is_in_place(self) -> bool:
        """Whether the open file is the one that has the name."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def log_to(path: Path) -> None:
    """Send all that is printed and logged from now on to a file.

    Raises `CardsError` if it cannot be written.
    """
    try:
        sys.stdout = sys.stderr = LogFile(path)
    except OSError as error:
        raise CardsError(f"log_file {path}: {error.strerror}") from None
