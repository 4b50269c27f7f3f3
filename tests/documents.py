"""The examples in the documentation, to be run against a server."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:8000"


class Example(NamedTuple):
    """A fenced block of a page."""

    where: str
    language: str
    code: str

    def at(self, url: str) -> str:
        """The code for a server at another address."""
        return self.code.replace(ADDRESS, url)


def examples() -> list[Example]:
    """All blocks of all pages that ask a server for something."""
    found: list[Example] = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(python|sh)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            language, code = match.groups()
            if language == "python" or code.startswith("curl "):
                line = text[: match.start()].count("\n") + 1
                found.append(Example(f"{page.name}:{line}", language, code))
    return found
