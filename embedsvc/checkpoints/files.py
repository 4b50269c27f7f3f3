"""The JSON files of a checkpoint."""

from pathlib import Path
from typing import Any

import msgspec

from embedsvc.errors import CheckpointError


class Files:
    """Reads files of one folder; what is wrong with one is said with the model and the file."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model = model
        self.folder = folder

    def inside(self, path: str) -> "Files":
        """The files of a folder in this one."""
        return Files(self.model, self.folder / path)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where there is no such file."""
        return self._load(name, dict[str, Any]) or {}

    def read_list(self, name: str) -> list[dict[str, Any]] | None:
        """A JSON array of objects, or None where there is no such file."""
        return self._load(name, list[dict[str, Any]])

    def error(self, name: str, message: str) -> CheckpointError:
        """The error to raise about a file."""
        return CheckpointError(f"model `{self.model}`: {self.folder / name}: {message}")

    def _load(self, name: str, kind: Any) -> Any:
        try:
            return msgspec.json.decode((self.folder / name).read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(name, str(error.strerror)) from None
        except msgspec.MsgspecError as error:
            raise self.error(name, str(error)) from None
