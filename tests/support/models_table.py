"""The table of models in the documentation, made from the cards and the comments in models.toml."""

import re
from pathlib import Path
from typing import NamedTuple

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards

FILE = Path(__file__).parents[2] / "models.toml"


class Facts(NamedTuple):
    """The comment beside a card's name, and the heading above it."""

    licence: str
    parameters: str
    dimensions: int
    tokens: int | None
    heading: str


def facts() -> dict[str, Facts]:
    """The note of each card, by its id."""
    found: dict[str, Facts] = {}
    heading = ""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"# --- (.+?) -*$", line):
            heading = match[1]
        if match := re.match(r'\[models\."([^"]+)"\] # (.+)$', line):
            name, said = match.groups()
            size = re.search(r"([\d.]+[MB]) parameters, (\d+) dimensions(?:, (\d+) tokens)?$", said)
            assert size, f"{name}: {said}"
            tokens = int(size[3]) if size[3] else None
            licence = said.partition(";")[0]
            found[name] = Facts(licence, size[1], int(size[2]), tokens, heading)
    return found


def table() -> str:
    """The table, a row for each card, with a heading where the file has one."""
    known = facts()
    rows = [
        "| model | also | languages | parameters | dimensions | tokens | prompts | licence |",
        "|---|---|---|---:|---|---:|---|---|",
    ]
    for card in read_cards(FILE).by_id.values():
        fact = known[card.id]
        prompts = ", ".join(f"`{name}`" for name, text in (card.prompts or {}).items() if text)
        sizes = ", ".join(map(str, (fact.dimensions, *card.dimensions)))
        cells = (
            f"`{card.id}`",
            _also(card),
            "many" if fact.heading == "many languages" else "English",
            fact.parameters,
            sizes,
            f"{fact.tokens:,}" if fact.tokens else "",
            prompts,
            fact.licence,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _also(card: Card) -> str:
    return ", ".join(f"`{alias}`" for alias in card.aliases if "/" not in alias)
