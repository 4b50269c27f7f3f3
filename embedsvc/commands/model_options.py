"""What commands on one model share: which model it is, and the device that it runs on."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.commands.cards import add_cards, cards_of
from embedsvc.errors import CardsError
from embedsvc.inference.device import open_device
from embedsvc.inference.heads import heads_of
from embedsvc.inference.ops.base import Ops
from embedsvc.settings import BackendChoice
from embedsvc.system.home import expanded

T = TypeVar("T")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which model, and where it runs."""
    parser.add_argument("model", help="id or alias of a card, or a folder with a checkpoint")
    add_cards(parser)
    parser.add_argument(
        "--backend", choices=get_args(BackendChoice), default="auto", help="what computes"
    )


def card_named(model: str | None, cards: Path | None) -> Card:
    """The card that a name means, or one for the folder of that name. No name means the first card.

    Raises `CardsError`.
    """
    return card_and_prompt_named(model, cards)[0]


def card_and_prompt_named(model: str | None, cards: Path | None) -> tuple[Card, str | None]:
    """The same card, and the prompt if the name is an alias with one. Raises `CardsError`."""
    known = cards_of(cards)
    if model is None:
        return next(iter(known.by_id.values())), None
    found = known.find(model)
    if found is not None:
        return found
    folder = expanded(Path(model))
    if not folder.is_dir():
        near = " or ".join(f"`{name}`" for name in known.names.near(model))
        hint = f"; is it {near}?" if near else ""
        raise CardsError(f"`{model}` is neither the name of a card nor a folder{hint}")
    return Card(id=folder.resolve().name, path=folder), None


def open_model(card: Card) -> Checkpoint:
    """The files of a model of whatever kind. Raises `CheckpointError` if it is not supported."""
    checkpoint = open_checkpoint(card)
    heads_of(checkpoint)
    return checkpoint


def on_device(backend: BackendChoice, checkpoint: Checkpoint, function: Callable[[Ops], T]) -> T:
    """The result of `function(ops)`, run on the backend's device with operations in the dtype that
    the checkpoint is computed in. Raises `CheckpointError`."""
    device = open_device(backend)

    async def run() -> T:
        return await device.run(lambda: function(device.make_ops(device.dtype(checkpoint))))

    try:
        return asyncio.run(run())
    finally:
        device.close()
