"""What a manager does to this machine: it writes files and runs commands.

Files that embedsvc has not written are never touched.
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from embedsvc.errors import ServiceError

MARKER = "Written by `embedsvc service install`"
"""A text in every file that `Machine` writes. A file without it is not ours."""
SECRET = ("KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD")
"""The last word in the name of a variable whose value must not be printed."""
CREDENTIALS = re.compile(r"(^\s*[\"']?|//)[^/\s]+@")
"""A user and a password in a URL, or in one that begins with them, as a proxy's may."""
NOT_SHOWN = "(not shown)"


class Answer(NamedTuple):
    """How a command ended: its exit status, and all that it printed."""

    status: int
    text: str


class Actions:
    """Writes files and runs commands."""

    def refuse(self, why: str) -> None:
        """Raise `ServiceError`. A dry run tells it, and goes on."""
        raise ServiceError(why)

    def ask(self, *command: str) -> Answer:
        """Run a command that changes nothing. Raises `ServiceError` if there is no such command."""
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise ServiceError(f"{command[0]}: {error.strerror}") from None
        return Answer(done.returncode, done.stdout.strip())

    def do(self, *command: str, allowed: tuple[int, ...] = (0,)) -> Answer:
        """Run a command. Raises `ServiceError` unless it ends with an allowed status."""
        answer = self.ask(*command)
        if answer.status not in allowed:
            raise ServiceError(
                f"`{shlex.join(command)}` ended with {answer.status}: {answer.text or 'no word'}"
            )
        return answer

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition came true within so many seconds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                return False
            time.sleep(0.25)
        return True

    def make_folder(self, folder: Path, owner: str | None = None) -> None:
        """Make a folder, and those above it. A new one gets this owner. Raises `ServiceError`."""
        if folder.is_dir():
            return
        _try(folder, lambda: folder.mkdir(mode=0o755, parents=True))
        if owner is not None:
            _try(folder, lambda: shutil.chown(folder, owner))

    def write(self, path: Path, text: str, mode: int = 0o644, owner: str | None = None) -> None:
        """Write a file of ours, whole or not at all. Raises `ServiceError` if another's is
        there."""
        self._check_ours(path)
        new = path.with_name(f".{path.name}.new")

        def write() -> None:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            # Never readable by others, not even while it is written.
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                os.fchmod(descriptor, mode)
            if owner is not None:
                shutil.chown(new, owner)
            new.replace(path)

        _try(path, write)

    def remove(self, path: Path) -> None:
        """Remove a file of ours, if it is there. Raises `ServiceError` if it is another's."""
        self._check_ours(path)
        _try(path, lambda: path.unlink(missing_ok=True))

    def _check_ours(self, path: Path) -> None:
        try:
            there = path.exists() or path.is_symlink()
        except PermissionError:
            there = True
        if there and not ours(path):
            self.refuse(
                f"{path} was not written by embedsvc, or cannot be read; move it away first"
            )


class DryRun(Actions):
    """Only tells what it would do, through `say`; what is in the way of it, too."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._refused: set[str] = set()

    def refuse(self, why: str) -> None:
        if why not in self._refused:
            self._refused.add(why)
            self._say(f"warning: {why}")

    def ask(self, *command: str) -> Answer:
        try:
            return super().ask(*command)
        except ServiceError as error:
            self.refuse(str(error))
            return Answer(127, "")

    def do(self, *command: str, allowed: tuple[int, ...] = (0,)) -> Answer:
        self._say(f"run {shlex.join(command)}")
        return Answer(allowed[0], "")

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        return True

    def make_folder(self, folder: Path, owner: str | None = None) -> None:
        if not folder.is_dir():
            self._say(f"make folder {folder}{_of(owner)}")

    def write(self, path: Path, text: str, mode: int = 0o644, owner: str | None = None) -> None:
        self._check_ours(path)
        lines = "".join(f"    {_masked(line)}\n" for line in text.splitlines())
        self._say(f"write {path}{_of(owner)}, mode {mode:04o}:\n{lines}")

    def remove(self, path: Path) -> None:
        self._check_ours(path)
        if ours(path):
            self._say(f"remove {path}")


def ours(path: Path) -> bool:
    """Whether `Machine` wrote the file that is there."""
    try:
        return MARKER in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _try(path: Path, act: Callable[[], object]) -> None:
    try:
        act()
    except PermissionError:
        raise ServiceError(f"{path}: permission denied; with --system, run it as root") from None
    except (OSError, LookupError) as error:
        raise ServiceError(f"{path}: {error}") from None


def secret(name: str) -> bool:
    """Whether the value of a variable or a setting of that name must not be printed.

    >>> secret("EMBEDSVC_API_KEYS"), secret("EMBEDSVC_PORT")
    (True, False)
    """
    return name.upper().rpartition("_")[2] in SECRET


def _masked(line: str) -> str:
    """A line without what must not be printed.

    >>> _masked("HF_TOKEN=hf_x"), _masked("HTTPS_PROXY=http://ada:pass@proxy:3128")
    ('HF_TOKEN=(not shown)', 'HTTPS_PROXY=http://(not shown)@proxy:3128')
    """
    name, is_setting, value = line.partition("=")
    if not is_setting:
        return line
    shown = NOT_SHOWN if secret(name.strip()) else CREDENTIALS.sub(rf"\1{NOT_SHOWN}@", value)
    return f"{name}={shown}"


def _of(owner: str | None) -> str:
    return f" of {owner}" if owner else ""
