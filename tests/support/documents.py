"""The examples in the documentation, and what they need to be run."""

import contextlib
import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.http_server import HttpServer, QuietHandler
from tests.support.project import ROOT

ADDRESS = "http://127.0.0.1:8000"
CHAT = "http://127.0.0.1:11434"
"""Where the pages expect a chat model: Ollama's address."""
HERE = {"openai", "numpy", "embedsvc", "passages", "rerank", *sys.stdlib_module_names}
"""What an example may import to be run in tests/. The others are run in clients/."""
NOTES = {
    "returns.md": "Customers may send things back within 30 days of delivery, unused and in the "
    "box they came in. We pay the money back within a week of their arrival.",
    "shipping.md": "Parcels leave the warehouse on working days at four. Within the country they "
    "take two days, to islands five.",
    "backups.md": "The database is copied every night at two, and the copy is restored on a spare "
    "machine every Monday, so that we know it can be.",
    "kitchen.md": "Whoever empties the coffee machine fills it. The fridge is cleared on Fridays.",
}
REVIEWS = [
    "The lamp arrived broken, with glass all over the box.",
    "Arrived broken: the lamp's glass was in pieces.",
    "Bright, cheap, and easy to put up.",
    "The parcel came two weeks late.",
    "Delivery took more than a fortnight.",
    "Such a bright light, and so easy to install.",
    "The lamp arrived broken, with glass all over the box!",
]


class Example(NamedTuple):
    """A fenced block of code on a page."""

    where: str
    language: str
    code: str

    @property
    def page(self) -> str:
        return self.where.partition(":")[0]

    @property
    def line(self) -> int:
        return int(self.where.partition(":")[2])

    @property
    def saved_as(self) -> str | None:
        """The name under which the page says to save it, so that other examples can import it."""
        named = re.match(r"# (\w+\.py): ", self.code)
        return named[1] if named else None

    @property
    def reason(self) -> str | None:
        """Why it is run neither in tests/ nor in clients/; None if it is run."""
        return "needs Ray; extras/test_ray.py has it" if "embedsvc.ray_" in self.code else None

    @property
    def imports(self) -> set[str]:
        """The modules that a block of Python imports."""
        return set(re.findall(r"^(?:from|import) (\w+)", self.code, re.MULTILINE))

    def at(self, url: str, chat: str = CHAT) -> str:
        """The code, with the addresses of other servers."""
        return self.code.replace(ADDRESS, url).replace(CHAT, chat)


def pages() -> list[Path]:
    """All pages that people read to use embedsvc."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> list[Example]:
    """All blocks of all pages that are a program or commands of a shell."""
    found: list[Example] = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(python|sh)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append(Example(f"{page.name}:{line}", *match.groups()))
    return found


PRINTED = (
    ("clustering.md", "ALIKE", ("all over the box!' is like 'The lamp arrived broken",)),
    ("clustering.md", "k_means", ("3 like: ", "2 like: ", "'The lamp arrived broken")),
    ("rag.md", "chromadb", ("notes/returns.md: 'Customers may send",)),
    ("rag.md", "qdrant_client", ("notes/returns.md: 'Customers may send",)),
    ("rag.md", "rerank(question, [", ("notes/returns.md: 'Customers may send",)),
    ("search.md", "passages", ("notes/backups.md  'The database is copied", "3 of 3 right")),
)
"""A page, a word that a program on it has, and what the program prints of the example files."""


def printed(example: Example) -> tuple[str, ...]:
    """What the example is expected to print."""
    return next(
        (said for page, word, said in PRINTED if example.page == page and word in example.code), ()
    )


def save_files(folder: Path, url: str) -> None:
    """Save the files that pages say to save, for a server at that address."""
    for example in examples():
        if example.saved_as is not None:
            (folder / example.saved_as).write_text(example.at(url), encoding="utf-8")


def write_workplace(folder: Path) -> None:
    """Write the files that examples are about."""
    (folder / "notes").mkdir()
    for name, text in NOTES.items():
        (folder / "notes" / name).write_text(text + "\n", encoding="utf-8")
    rows = [
        {"id": number, "stars": 3, "body": text, "text": text}
        for number, text in enumerate(REVIEWS, 1)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "reviews.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "titles.txt").write_text("a cat on a mat\ninterest rates rose\n", encoding="utf-8")
    (folder / "a.csv").write_text("title\nA lamp\nA chair\n", encoding="utf-8")
    (folder / "b.csv.gz").write_bytes(gzip.compress(b"title\nA table\n"))
    (folder / "log.txt.gz").write_bytes(gzip.compress(b"started\nstopped\n"))


def run_program(code: str, folder: Path) -> str:
    """Run a program in a folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def chatting() -> Iterator[tuple[str, list[str]]]:
    """The URL of a chat model that repeats what it was asked, and a list of all it was asked."""
    asked: list[str] = []

    class Handler(QuietHandler):
        def post(self) -> None:
            body = json.loads(self.body())
            asked.append(body["messages"][-1]["content"])
            message = {"role": "assistant", "content": asked[-1]}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            }
            self.answer(200, json.dumps(answer).encode(), Content_Type="application/json")

    with HttpServer(Handler) as server:
        yield server.url, asked
