"""`embedsvc rm MODEL ...`: delete models that were downloaded."""

import argparse

from embedsvc.catalog.names import spelled
from embedsvc.commands.cards import add_cards, cards_of
from embedsvc.errors import CardsError
from embedsvc.wording.quantities import bytes_in_words

EXAMPLES = """\
  embedsvc rm bge-m3

All revisions go, also where another program downloaded them.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", nargs="+", help="id or alias of a card, or a repository")
    add_cards(parser)


def run(args: argparse.Namespace) -> int:
    """Delete, and print what was deleted. Raises `SetupError`."""
    from embedsvc.checkpoints import hub_cache  # takes long to import

    cards = cards_of(args.models)
    for model in args.model:
        found = cards.find(model)
        repo = found[0].repo if found else spelled(model)
        if repo is None or not hub_cache.is_here(repo):
            raise CardsError(f"`{model}` was not downloaded: there is nothing to delete")
        print(f"{repo}: {bytes_in_words(hub_cache.delete(repo))} deleted")
    return 0
