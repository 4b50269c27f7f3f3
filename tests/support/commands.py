"""The commands in the documentation: how tests run them, and why some are not run."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.documents import Example, examples
from tests.support.project import ROOT

NOT_HERE = (
    (r"docker |deploy/check-image\.sh", "needs Docker"),
    (r"brew ", "needs a Mac"),
    (r".*\[cuda", "needs an NVIDIA card"),
    (r"embedsvc service ", "would install a service; tests/test_service.py has the commands"),
    (r"(apt-get|xcode-select) ", "changes the machine"),
    (r"(\S*/)?pip ", "installs from the network"),
    (r"ray |serve run |export RAY_", "needs Ray; extras/test_ray.py has it"),
    (r"embedsvc report ", "takes a while; tests/test_report.py has it"),
    (
        r"embedsvc (pull|rm) |.*\b(bge-m3|e5-small-v2|nomic-embed\S*|ms-marco\S*)\b",
        "needs a download",
    ),
    (r"make test\b", "is what runs this"),
    (r"git pull$", "changes this checkout"),
    (r"rm -r ~", "would remove settings; tests/test_systemd_unit.py sees what uninstalling leaves"),
    (r"[A-Z_]+=\S+$", "settings of another program"),
)
"""How commands begin that are not run, and why. Those of `embedsvc` are parsed all the same."""
SERVES = re.compile(r"(?:[A-Z_]+=\S+ )*(?:make serve|embedsvc serve)\b")
ASKS = re.compile(r"embedsvc (?:ps|load|unload|reload|status|bench)\b")
"""Commands that ask the server at the default address, unless they have `--url`."""
CODES = {"embedsvc doctor": {0, 1}}
"""Commands that may end with other codes than 0."""


class Command(NamedTuple):
    """A command on a page of the documentation."""

    line: str

    @property
    def reason(self) -> str | None:
        """Why it is not run; None if it is."""
        return next((why for begins, why in NOT_HERE if re.match(begins, self.line)), None)

    @property
    def serves(self) -> bool:
        return SERVES.match(self.line) is not None

    @property
    def codes(self) -> set[int]:
        return next((good for begins, good in CODES.items() if self.line.startswith(begins)), {0})

    def at(self, url: str) -> str:
        """The command line that is run, for a server at that address."""
        line = self.line
        if self.serves:
            line = re.sub(r" (--port |PORT=)\d+", "", line)
            return line + (" PORT=0" if "make" in line else " --port 0")
        if ASKS.match(line):
            line = re.sub(r" --url \S+", "", line)
            line += f" --url {url}" + ("/v1" if " bench" in line else "")
            line = re.sub(
                r"(embedsvc bench.*?)(?: --seconds \S+)?( --url)", r"\1 --seconds 0.2\2", line
            )
        return line

    def ours(self) -> list[str] | None:
        """The arguments of `embedsvc`, if the command calls it."""
        match = re.search(r"(?:^|\| |^[A-Z_]+=\S+ )embedsvc ([^|>&)]*)", self.line)
        return shlex.split(match[1]) if match else None


def make_files(example: Example, folder: Path, url: str) -> None:
    """Write the files, such as vectors, that commands above the example on its page write.

    Rows that are set aside, which makes the exit code 1, are part of the corpus.
    """
    if example.imports & {"passages", "openai"}:
        return  # it asks a server, and needs no files
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    for other in examples():
        if (other.page, other.language) == (example.page, "sh") and other.line < example.line:
            for command in commands(other):
                if command.line.startswith("embedsvc embed "):
                    done = subprocess.run(
                        ["bash", "-c", f"{command.line} --url {url}/v1"],
                        cwd=folder,
                        env=os.environ | {"PATH": path},
                        capture_output=True,
                        text=True,
                    )
                    assert done.returncode in (0, 1), done.stderr


def commands(example: Example) -> list[Command]:
    """The commands of a block, without comments, and without the path of the environment."""
    text = example.code.replace("\\\n", " ").replace(".venv/bin/embedsvc", "embedsvc")
    lines = [re.sub(r"(^|\s+)# .*", "", line).strip() for line in text.splitlines()]
    return [Command(re.sub(r"  +", " ", line)) for line in lines if line]
