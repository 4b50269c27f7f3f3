"""The README's table of models, made from models.toml:

    python -m tests.models_table

writes it into the README; a test checks that it is there.
"""

import re
from pathlib import Path

from embedsvc.cards import Card, read_cards

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- models: made by tests/models_table.py -->\n", "<!-- /models -->\n"


def licences() -> dict[str, str]:
    """What stands beside each card's name."""
    text = (ROOT / "models.toml").read_text(encoding="utf-8")
    return dict(re.findall(r'^\[models\."([^"]+)"\] # (.+)$', text, re.MULTILINE))


def table() -> str:
    """The table, a row for each card."""
    licence = licences()
    rows = [
        "| model | also | prompts | also cut to | licence |",
        "|---|---|---|---|---|",
    ]
    for card in read_cards(ROOT / "models.toml").by_id.values():
        prompts = ", ".join(f"`{name}`" for name, text in (card.prompts or {}).items() if text)
        sizes = ", ".join(map(str, card.dimensions))
        short = licence[card.id].partition(";")[0]
        rows.append(f"| `{card.id}` | {_also(card)} | {prompts} | {sizes} | {short} |")
    return "\n".join(rows) + "\n"


def _also(card: Card) -> str:
    return ", ".join(f"`{alias}`" for alias in card.aliases if "/" not in alias)


def main() -> None:
    """Writes the table into the README."""
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    file.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
