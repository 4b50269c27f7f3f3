"""What commands on one model share: which model it is, and the device to run it on."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

from embedsvc.cards import Card, Dtype, find_cards, read_cards
from embedsvc.device import open_device
from embedsvc.errors import CardsError
from embedsvc.ops.base import Ops
from embedsvc.settings import BackendChoice

T = TypeVar("T")


def add_model(parser: argparse.ArgumentParser) -> None:
    """The options that say which model, and where it runs."""
    parser.add_argument("model", help="id or alias of a card, or a folder with a checkpoint")
    parser.add_argument("--models", type=Path, help="cards file", metavar="FILE")
    parser.add_argument(
        "--backend", choices=get_args(BackendChoice), default="auto", help="default: auto"
    )


def find_card(model: str | None, cards: Path | None) -> Card:
    """The card of that id or alias, by default the first, or one for the folder of that name.

    Raises `CardsError`.
    """
    by_name = read_cards(find_cards(cards)).by_name
    if model is None:
        return next(iter(by_name.values()))
    if model in by_name:
        return by_name[model]
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise CardsError(f"`{model}` is neither the name of a card nor a folder")
    return Card(id=folder.resolve().name, path=folder)


def on_device(backend: BackendChoice, dtype: Dtype | None, function: Callable[[Ops], T]) -> T:
    """`function(ops)` on the backend's device, with operations in that dtype."""
    device = open_device(backend)

    async def run() -> T:
        return await device.run(lambda: function(device.make_ops(dtype)))

    try:
        return asyncio.run(run())
    finally:
        device.close()
