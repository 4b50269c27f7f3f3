"""The real server in a process of its own: one that runs, and one that does not start."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.project import ROOT

COMMAND = (sys.executable, "-m", "embedsvc", "serve")


@contextlib.contextmanager
def serving(
    *options: str, cards: Path = ROOT / "models.toml", command: tuple[str, ...] = COMMAND
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A running server's base URL and process; stopped, if it still runs, at the end."""
    process = subprocess.Popen(
        [*command, "--port", "0", "--models", str(cards), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Try:" not in said:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said += line
        match = re.search(r"at (https?://\S+)/v1", said)
        assert match
        yield match[1], process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def fails(*options: str, **environ: str) -> tuple[int, str]:
    """Exit code and message of a server that does not start."""
    done = subprocess.run(
        [*COMMAND, *options],
        cwd=ROOT,
        env=os.environ | {"EMBEDSVC_PORT": "0"} | environ,  # whoever has the usual one
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr
