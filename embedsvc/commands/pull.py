"""`embedsvc pull MODEL ...`: download models, or those of their files that are new."""

import argparse

from embedsvc.catalog.cards import Card
from embedsvc.catalog.names import spelled
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.commands.cards import add_cards, cards_of
from embedsvc.commands.progress import Bar
from embedsvc.errors import CardsError, CheckpointError

EXAMPLES = """\
  embedsvc pull bge-m3
  embedsvc pull e5-small-v2 intfloat/e5-base-v2

A download that was cut goes on where it was.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", nargs="+", help="id or alias of a card, or a repository")
    add_cards(parser)


def run(args: argparse.Namespace) -> int:
    """Download, and print the folder of each model. Raises `SetupError`."""
    from embedsvc.checkpoints import hub  # takes long to import

    cards = cards_of(args.models)
    for model in args.model:
        found = cards.find(model)
        name = spelled(model)
        card = found[0] if found else (Card(id=name, repo=name) if "/" in name else None)
        if card is None or card.repo is None:
            raise CardsError(f"`{model}` is neither a card with a `repo` nor a repository")
        bar = Bar(card.repo)
        try:
            folder = hub.pull(card.repo, card.revision, bar.show)
        except hub.HubError as error:
            raise CheckpointError(f"model `{card.id}`: repository {card.repo} {error}") from None
        finally:
            bar.end()
        if found:
            open_checkpoint(card)  # raises if the files are not what the card says
        print(folder)
    return 0
