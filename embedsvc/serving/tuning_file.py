"""What tuning found out, kept for the next load, and in a file for the next start."""

import logging
from pathlib import Path

from embedsvc.errors import CardsError
from embedsvc.inference.ops.tuning import Choices
from embedsvc.system.home import cache_home
from embedsvc.system.kept import read_kept, write_kept

NAME = "tuning.json"
MOST = 256
"""How many models' choices are kept: those that were found last."""
MOST_BYTES = 1 << 18
"""A file that is longer was not written here."""
log = logging.getLogger(__name__)


class TuningFile:
    """The `Kept` of a server. It is used by one thread, the one that loads."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder it is in the user's own for caches. If nobody has a home here, choices
        are kept as long as the process lives."""
        try:
            self._path: Path | None = (folder or cache_home()) / NAME
        except CardsError:
            self._path = None
        self._known: dict[str, dict[str, bool]] | None = None  # before the file is read

    def get(self, key: str) -> Choices | None:
        if self._known is None:
            self._known = self._read()
        return self._known.get(key)

    def put(self, key: str, choices: Choices) -> None:
        """Keep choices. Where they cannot be written, that is logged, and they are for now."""
        known = self._read() | (self._known or {})  # another server may have written, too
        known.pop(key, None)
        known[key] = dict(choices)
        self._known = dict(list(known.items())[-MOST:])
        if self._path is not None:
            try:
                write_kept(self._path, self._known)
            except OSError as error:
                log.warning("%s: %s; what tuning found is not kept", self._path, error.strerror)

    def _read(self) -> dict[str, dict[str, bool]]:
        """What the file has; nothing if there is none, or it is damaged, which is logged."""
        if self._path is None:
            return {}
        try:
            return read_kept(self._path, dict[str, dict[str, bool]], MOST_BYTES) or {}
        except (OSError, ValueError) as error:
            log.warning("%s: %s; it is ignored, and models are tuned anew", self._path, error)
            return {}
