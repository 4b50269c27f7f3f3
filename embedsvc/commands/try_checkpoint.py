"""`embedsvc try REPO-OR-FOLDER`: whether a model would load, before it is here or has a card."""

import argparse
from pathlib import Path

import msgspec

from embedsvc.catalog.ad_hoc import REPOSITORY
from embedsvc.catalog.cards import Card
from embedsvc.commands.cards import add_cards, cards_of
from embedsvc.diagnosis.trial import Trial, try_checkpoint
from embedsvc.errors import CardsError
from embedsvc.system.home import expanded

EXAMPLES = """\
  embedsvc try BAAI/bge-m3
  embedsvc try ./my-model
  embedsvc try sentence-transformers/all-MiniLM-L6-v2 --json

Nothing is downloaded but config.json. The exit code is 1 if it would not load.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("model", help="a repository, a folder, or id or alias of a card")
    add_cards(parser)
    parser.add_argument("--json", action="store_true", help="a line of JSON, for programs")


def run(args: argparse.Namespace) -> int:
    """Print what was found out, and the card. Returns 1 if it would not load.

    Raises `SetupError`.
    """
    trial = try_checkpoint(_card(args.model, args.models))
    print(_as_json(trial) if args.json else _in_words(trial))
    return 0 if trial.loads else 1


def _card(name: str, cards: Path | None) -> Card:
    """The card of that name, or one for a folder or a repository. Raises `CardsError`."""
    folder = expanded(Path(name))
    if folder.is_dir():
        return Card(id=folder.resolve().name, path=folder)
    found = cards_of(cards).find(name)
    if found is not None:
        return found[0]
    if REPOSITORY.fullmatch(name):
        return Card(id=name.rpartition("/")[2], repo=name)
    raise CardsError(f"`{name}` is no folder, no repository (somebody/model) and no card")


def _in_words(trial: Trial) -> str:
    width = max(map(len, trial.facts))
    lines = [f"{name:{width}}  {found}" for name, found in trial.facts.items()]
    return "\n".join([*lines, "", "A card for models.toml:", "", trial.card])


def _as_json(trial: Trial) -> str:
    told = {"loads": trial.loads, "facts": trial.facts, "card": trial.card}
    return msgspec.json.encode(told).decode()
