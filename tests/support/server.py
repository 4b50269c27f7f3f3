"""The real server in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.project import ROOT

INSTALLED = (str(ROOT / ".venv/bin/embedsvc"), "serve")
"""The command for tests in other environments, in which embedsvc is not installed."""
COMMAND = (sys.executable, "-m", "embedsvc", "serve")


@contextlib.contextmanager
def serving(
    *options: str, cards: Path = ROOT / "models.toml", command: tuple[str, ...] = COMMAND
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The base URL and the process of a running server. It is killed at the end."""
    process = subprocess.Popen(
        [*command, "--port", "0", "--models", str(cards), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield address(process), process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def announcement(process: subprocess.Popen[str]) -> str:
    """Wait until a server is ready, and return what it prints."""
    assert process.stdout is not None
    said = ""
    while "Try:" not in said:
        line = process.stdout.readline()
        assert line, process.communicate()  # it ended
        said += line
    return said


def address(process: subprocess.Popen[str]) -> str:
    """Wait until a server is ready, and return its base URL."""
    said = announcement(process)
    match = re.search(r"at (https?://\S+)/v1", said)
    assert match, said
    return match[1]


def fails(*options: str, **environ: str) -> tuple[int, str]:
    """The exit code and the message of a server that cannot start."""
    done = subprocess.run(
        [*COMMAND, *options],
        cwd=ROOT,
        env=os.environ | {"EMBEDSVC_PORT": "0"} | environ,  # the usual port may be taken
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr
