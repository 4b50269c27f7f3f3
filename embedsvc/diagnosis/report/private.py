"""What tells who made a report: taken out of every text that was not written for reports."""

import os
import pwd
import re
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.errors import CardsError

HIDDEN = "[hidden]"
USERS = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
HOSTS = ("HOSTNAME", "HOST", "COMPUTERNAME")
PATH = re.compile(r"(?<![\w/<])(?:~|file:/)?/[^\s'\"`,;:)\]}]+|[A-Za-z]:\\[^\s'\"`,;)]+")
CONVERTERS = frozenset({"mlx-community"})
"""Owners of repositories, beside those of the cards that are shipped, whose models are public."""


class Hiding:
    """Hides names of people, machines and folders, and of models that may be nobody's business."""

    def __init__(self, cards: Iterable[Card]) -> None:
        """`cards` are the models that are measured."""
        known = _shipped()
        owners = {card.repo.partition("/")[0] for card in known.values() if card.repo} | CONVERTERS
        self._names: dict[str, str] = {}
        secrets = [*_people(), *_hosts(), *map(str, _folders())]
        for number, card in enumerate(cards, 1):
            if known.get(card.id) == card:
                self._names[card.id] = card.id
                continue
            secrets += [card.id, *card.aliases]
            if card.path:
                secrets += [str(card.path), os.path.realpath(card.path)]
            if card.repo and card.repo.partition("/")[0] in owners and not card.path:
                self._names[card.id] = card.repo
            else:
                self._names[card.id] = f"unlisted-{number}"
                secrets.append(card.repo or "")
        words = sorted({each for each in secrets if each}, key=len, reverse=True)
        self._secret = re.compile(
            "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words), re.IGNORECASE
        )

    def name(self, card: Card) -> str:
        """What a model is called: its own name only where everybody may know it."""
        return self._names[card.id]

    def hide(self, text: str) -> str:
        """The text without what tells who made it."""
        return PATH.sub(HIDDEN, self._secret.sub(HIDDEN, text))


def _shipped() -> dict[str, Card]:
    """The cards that come with embedsvc, by id."""
    package = Path(__file__).parents[2]
    for file in (package / "models.toml", package.parent / "models.toml"):
        with suppress(CardsError):
            return read_cards(file).by_id
    return {}


def _people() -> set[str]:
    """What the user of this process is called, at the login and otherwise."""
    found = {os.environ.get(name, "") for name in USERS}
    with suppress(KeyError):  # a container's user may have no name
        entry = pwd.getpwuid(os.getuid())
        whole = entry.pw_gecos.partition(",")[0]
        found |= {entry.pw_name, Path(entry.pw_dir).name, whole, *whole.split()}
    return found


def _hosts() -> set[str]:
    """What this machine is called, with its domain and without."""
    found = {socket.gethostname(), *(os.environ.get(name, "") for name in HOSTS)}
    return found | {host.partition(".")[0] for host in found}


def _folders() -> set[Path]:
    """The folders that this process knows of. `PATH` finds others, but not those with spaces."""
    found = {Path.cwd(), Path(sys.prefix), Path(__file__).parents[3]}
    found |= {Path(value) for value in os.environ.values() if value.startswith("/")}
    with suppress(RuntimeError):
        found.add(Path.home())
    found |= {Path(os.path.realpath(folder)) for folder in found}  # as errors may name them
    return {folder for folder in found if len(folder.parts) > 1}
