"""The parts of pages that are made from the code and from models.toml:

    python -m tests.support.pages

writes them all where they belong; tests/test_pages.py checks that they are there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from embedsvc.exits import EXITS
from tests.support import mlx_community, models_table, routes_tables, settings_tables

DOCS = Path(__file__).parents[2] / "docs"


class Part(NamedTuple):
    """A generated part of a page, between two comments that name it."""

    page: str
    name: str
    make: Callable[[], str]

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: made by tests/support/pages.py -->\n"

    @property
    def end(self) -> str:
        return f"<!-- /{self.name} -->\n"

    def found(self) -> str:
        """The text that the page has there."""
        text = (DOCS / self.page).read_text(encoding="utf-8")
        return text.partition(self.begin)[2].partition(self.end)[0]

    def write(self) -> None:
        """Write the text that should be there."""
        file = DOCS / self.page
        before, begin, rest = file.read_text(encoding="utf-8").partition(self.begin)
        assert begin, f"{self.page} has no place for {self.name}"
        after = rest.partition(self.end)[2]
        text = f"{before}{begin}{self.make()}{self.end}{after}"
        file.write_text(text, encoding="utf-8")


def exit_codes() -> str:
    """A row for each exit code of the command."""
    rows = [f"| {code} | {because} |" for code, because in EXITS.items()]
    return "\n".join(["| code | because |", "|---|---|", *rows]) + "\n"


PARTS = (
    Part("models.md", "models", models_table.table),
    Part("models.md", "sparse", models_table.sparse),
    Part("models.md", "rerankers", models_table.rerankers),
    Part("models.md", "late-interaction", models_table.late_interaction),
    Part("models.md", "mlx-community", mlx_community.names),
    Part("configuration.md", "settings", settings_tables.settings),
    Part("configuration.md", "cards", settings_tables.cards),
    Part("operations.md", "exit codes", exit_codes),
    Part("routes.md", "routes", routes_tables.routes),
    Part("routes.md", "bodies", routes_tables.bodies),
    Part("routes.md", "refusals", routes_tables.refusals),
)

if __name__ == "__main__":
    for part in PARTS:
        part.write()
