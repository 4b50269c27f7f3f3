"""Which cards file a command uses, and the option that says so."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from embedsvc.catalog.cards import Cards
from embedsvc.catalog.cards_file import find_cards_file, read_cards
from embedsvc.commands.settings import setting_help
from embedsvc.settings import read_settings, variable


def add_cards(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--models", type=Path, help=setting_help("models"), metavar="PATH")


def cards_of(file: Path | None, environ: Mapping[str, str] = os.environ) -> Cards:
    """The cards of the file that the option or the environment names, else of the default one.

    Raises `CardsError`.
    """
    name = variable("models")
    settings = read_settings({"models": file}, {name: environ.get(name, "")})
    return read_cards(find_cards_file(settings.models))
