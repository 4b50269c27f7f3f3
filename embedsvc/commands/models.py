"""`embedsvc models`: the cards, and whether the files of each are on this disk."""

import argparse

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.commands.cards import add_cards, cards_of
from embedsvc.commands.table import write_table
from embedsvc.errors import CheckpointError
from embedsvc.wording.quantities import bytes_in_words

EXAMPLES = """\
  embedsvc models
  embedsvc models --models ./models.toml
  embedsvc models --names
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_cards(parser)
    parser.add_argument("--names", action="store_true", help="their ids alone, for programs")


def run(args: argparse.Namespace) -> int:
    """Print a line for each card. Raises `CardsError`."""
    cards = cards_of(args.models).by_id.values()
    if args.names:
        print("\n".join(card.id for card in cards))
        return 0
    write_table(("model", "on disk", "size", "from"), [(card.id, *_here(card)) for card in cards])
    return 0


def _here(card: Card) -> tuple[str, str, str]:
    """Whether a model is here, how large it is, and where it is or would come from."""
    try:
        folder = find_checkpoint(card, download=False)
    except CheckpointError:
        from embedsvc.checkpoints import hub_cache  # takes long to import

        part = hub_cache.size_of_parts(card.repo) if card.repo else 0
        state = "in part" if part else "no"
        return (
            state,
            bytes_in_words(part) if part else "",
            card.repo or str(card.path or card.package),
        )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return "yes", bytes_in_words(size), str(folder)
