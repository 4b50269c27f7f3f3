"""The tables of models in the documentation, made from cards and from comments in models.toml."""

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
    dimensions: int | None
    """None of a reranker."""
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
            size = re.search(
                r"([\d.]+[MB]) parameters(?:, (\d+) dimensions)?(?:, (\d+) tokens)?$", said
            )
            assert size, f"{name}: {said}"
            dimensions, tokens = (int(number) if number else None for number in size.groups()[1:])
            licence = said.partition(";")[0]
            found[name] = Facts(licence, size[1], dimensions, tokens, heading)
    return found


def table() -> str:
    """The table of models of vectors, a row for each card."""
    rows = [
        "| model | also | languages | parameters | dimensions | tokens | prompts | licence |",
        "|---|---|---|---:|---|---:|---|---|",
    ]
    for card, fact in _cards("embed"):
        prompts = ", ".join(f"`{name}`" for name, text in (card.prompts or {}).items() if text)
        sizes = ", ".join(map(str, (fact.dimensions, *card.dimensions)))
        first, last = _cells(card, fact)
        rows.append("| " + " | ".join((*first, sizes, *last[:1], prompts, *last[1:])) + " |")
    return "\n".join(rows) + "\n"


def rerankers() -> str:
    """The table of rerankers."""
    rows = [
        "| model | also | languages | parameters | tokens | licence |",
        "|---|---|---|---:|---:|---|",
    ]
    for card, fact in _cards("rerank"):
        first, last = _cells(card, fact)
        rows.append("| " + " | ".join((*first, *last)) + " |")
    return "\n".join(rows) + "\n"


def late_interaction() -> str:
    """The table of models of vectors of tokens."""
    rows = [
        "| model | also | languages | parameters | dimensions | tokens | licence |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for card, fact in _cards("late"):
        first, last = _cells(card, fact)
        rows.append("| " + " | ".join((*first, str(fact.dimensions), *last)) + " |")
    return "\n".join(rows) + "\n"


def sparse() -> str:
    """The table of models of sparse vectors."""
    rows = [
        "| model | also | languages | parameters | tokens | licence |",
        "|---|---|---|---:|---:|---|",
    ]
    for card, fact in _cards("sparse"):
        first, last = _cells(card, fact)
        rows.append("| " + " | ".join((*first, *last)) + " |")
    return "\n".join(rows) + "\n"


def _cards(table: str) -> list[tuple[Card, Facts]]:
    """The cards of a table: `embed`, `rerank`, `sparse` or `late`."""
    known = facts()
    cards = [(card, known[card.id]) for card in read_cards(FILE).by_id.values()]
    return [(card, fact) for card, fact in cards if _table_of(card, fact) == table]


def _table_of(card: Card, fact: Facts) -> str:
    if fact.heading.startswith("late interaction"):
        return "late"
    return card.task if card.task in ("rerank", "sparse") else "embed"


def _cells(card: Card, fact: Facts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What stands in both tables, up to the parameters and from the tokens on."""
    languages = "many" if fact.heading.endswith("many languages") else "English"
    tokens = f"{fact.tokens:,}" if fact.tokens else ""
    return (f"`{card.id}`", _also(card), languages, fact.parameters), (tokens, fact.licence)


def _also(card: Card) -> str:
    return ", ".join(f"`{alias}`" for alias in card.aliases if "/" not in alias)
