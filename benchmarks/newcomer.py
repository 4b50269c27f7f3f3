"""A newcomer's way, timed: clone, first vector, first LangChain query, first bulk file, dashboard.

    .venv/bin/python -m benchmarks.newcomer

clones this checkout's last commit into a new folder and does what the README and docs/langchain.md
say, by their own commands. What is installed is fetched by pip, from its cache if it has it.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import httpx2

from benchmarks.server import free_port

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:8000"
REVIEWS = """\
{"body": "The lamp arrived broken, with glass all over the box."}
{"body": "Bright, cheap, and easy to put up."}
{"body": "The parcel came two weeks late."}
"""
PATIENCE_SECONDS = 900


class Newcomer:
    """Somebody with a new clone and a stopwatch."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "embedsvc"
        self.url = f"http://127.0.0.1:{free_port()}"
        self._began = self._last = time.monotonic()

    def told(self, what: str) -> None:
        """Print how long a step took, and how long it is since the start."""
        now = time.monotonic()
        print(f"{what:<42}{now - self._last:>8.1f} s{now - self._began:>9.1f} s", flush=True)
        self._last = now

    def block(self, page: str, language: str, begins: str) -> str:
        """The first block of a page that begins like that."""
        text = (self.clone / page).read_text(encoding="utf-8")
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        return next(block for block in blocks if block.startswith(begins)).replace(
            ADDRESS, self.url
        )

    def run(self, *command: str) -> None:
        """Run a command in the clone, to its end."""
        subprocess.run(command, cwd=self.clone, check=True, timeout=PATIENCE_SECONDS)


def main() -> None:
    """Go all the way once, and print how long each step took."""
    with tempfile.TemporaryDirectory() as folder:
        newcomer = Newcomer(Path(folder))
        git = shutil.which("git") or "git"
        subprocess.run([git, "clone", "--quiet", ROOT, newcomer.clone], check=True)
        newcomer.told("git clone")
        port = newcomer.url.rpartition(":")[2]
        server = subprocess.Popen(
            ["make", "serve", f"PORT={port}"],
            cwd=newcomer.clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert server.stdout is not None
            if not any("Try:" in line for line in server.stdout):
                raise SystemExit("make serve did not serve")
            newcomer.told("make serve, until it is ready")
            use(newcomer)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.communicate()


def use(newcomer: Newcomer) -> None:
    """The steps once the server runs."""
    curl = newcomer.block("README.md", "sh", "curl").rstrip()
    newcomer.run("bash", "-ec", f"{curl} --silent --output vectors")
    assert (newcomer.clone / "vectors").stat().st_size > 1000
    newcomer.told("first vectors, by curl")
    newcomer.run("python3", "-m", "venv", "langchain")
    newcomer.run("langchain/bin/pip", "install", "--quiet", "langchain-openai")
    newcomer.told("pip install langchain-openai")
    newcomer.run(
        "langchain/bin/python",
        "-c",
        newcomer.block("docs/langchain.md", "python", "from langchain"),
    )
    newcomer.told("first LangChain query")
    (newcomer.clone / "reviews.jsonl").write_text(REVIEWS, encoding="utf-8")
    newcomer.run("bash", "-ec", newcomer.block("README.md", "sh", ".venv/bin/embedsvc embed"))
    newcomer.told("first bulk file, and a search in it")
    page = httpx2.get(newcomer.url, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "<title>" in page.text
    newcomer.told("dashboard")


if __name__ == "__main__":
    main()
