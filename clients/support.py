"""What clients are asked to embed, and the server that they are tried on."""

import contextlib
import subprocess
from collections.abc import Iterator

from tests.support.project import ROOT
from tests.support.server import INSTALLED, address

MODEL = "all-MiniLM-L6-v2"
TEXTS = [
    "a cat sat on the mat",
    "interest rates rose again",
    "the kitten rested on the rug",
    "how to boil an egg",
    "the central bank raised borrowing costs",
    "Füße, 東京 and 😂 — naïve",
]


@contextlib.contextmanager
def serving(*options: str) -> Iterator[str]:
    """The URL of a server that runs from this checkout."""
    command = [*INSTALLED, "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield address(process)
    finally:
        process.terminate()
        process.wait(timeout=30)
