"""A model in this process, embedding as the server would: same engine, same vectors."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from embedsvc.bulk.about import How
from embedsvc.cards import Card, Cards, find_cards, read_cards
from embedsvc.device import open_device
from embedsvc.errors import BulkError, CardsError, Unavailable
from embedsvc.registry import Embedded, Registry
from embedsvc.settings import Settings
from embedsvc.vectors import vectors_of

UNLIMITED = 1 << 60
"""Tokens: what waits is bounded by whoever calls, not refused."""


class Local:
    """A loaded model; see `Embedder`."""

    calls = 4  # one waits while another is finished, on either core or in either pass

    def __init__(self, registry: Registry, name: str, model: str) -> None:
        self.model = model
        self._registry = registry
        self._name = name

    async def embed(self, texts: Sequence[str], how: How) -> Embedded:
        wanted = how.request(self._name, list(texts))
        try:
            _, embedded = await vectors_of(self._registry, wanted)
        except Unavailable as error:
            raise BulkError(str(error)) from None
        return embedded


@asynccontextmanager
async def open_local(name: str | None, settings: Settings) -> AsyncGenerator[Local, None]:
    """The model of that name, by default the first of the cards file. Raises `SetupError`."""
    cards = _only(name, read_cards(find_cards(settings.models)))
    settings = msgspec.structs.replace(
        settings,
        cache_bytes=0,  # texts that are equal and in flight are still embedded once
        cache_folder=None,
        max_request_tokens=UNLIMITED,
        max_waiting_tokens=UNLIMITED,
    )
    device = open_device(settings.backend)
    registry = Registry(cards, device, settings)
    try:
        await registry.preload()
        model = next(iter(cards.by_id))
        yield Local(registry, name or model, model)
    finally:
        await registry.close()
        device.close()


def _only(name: str | None, cards: Cards) -> Cards:
    """The card of that name alone, to be loaded at once."""
    name = name or next(iter(cards.by_id))
    card = cards.by_name.get(name)
    folder = Path(name).expanduser()
    if card is None and folder.is_dir():
        card = Card(id=folder.resolve().name, path=folder)
    if card is None:
        there = ", ".join(cards.by_id)
        raise CardsError(f"no model `{name}` in {cards.file}; there are: {there}")
    if name in card.prompt_aliases:
        kind = card.prompt_aliases[name]
        raise CardsError(f"`{name}` is `{card.id}` with a prompt: say that by --input-type {kind}")
    card = msgspec.structs.replace(card, preload=True)
    return Cards(cards.file, {card.id: card}, {card.id: card, name: card})
