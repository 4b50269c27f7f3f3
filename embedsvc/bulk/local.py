"""A model in this process, embedding as the server would: same engine, same vectors."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import msgspec

from embedsvc.bulk.manifest import How
from embedsvc.catalog.cards import Card, Cards
from embedsvc.catalog.cards_file import find_cards
from embedsvc.errors import BulkError, Unavailable
from embedsvc.serving.embed_request import embed_request
from embedsvc.serving.engine import Embedded
from embedsvc.serving.registry import Registry, open_registry
from embedsvc.settings import Settings

UNLIMITED = 1 << 60
"""Tokens: what waits is bounded by whoever calls, not refused."""


class Local:
    """A loaded model; see `Embedder`."""

    fingerprint: str | None = None  # one model that stays
    calls = 4  # one waits while another is finished, on either core or in either pass

    def __init__(self, registry: Registry, model: str) -> None:
        self.model = model
        self._registry = registry

    async def embed(self, texts: Sequence[str], how: How) -> Embedded:
        wanted = how.request(self.model, list(texts))
        try:
            card, prompt = self._registry.card(wanted.model)
            async with self._registry.use(wanted.model) as engine:
                return await embed_request(engine, card, prompt, wanted)
        except Unavailable as error:
            raise BulkError(str(error)) from None


@asynccontextmanager
async def open_local(card: Card, settings: Settings) -> AsyncGenerator[Local, None]:
    """The card's model, loaded. Raises `SetupError`."""
    card = msgspec.structs.replace(card, preload=True, pin=True)
    settings = msgspec.structs.replace(
        settings,
        cache_bytes=0,  # texts that are equal and in flight are still embedded once
        cache_folder=None,
        max_request_tokens=UNLIMITED,
        max_waiting_tokens=UNLIMITED,
    )
    cards = Cards(find_cards(settings.models), {card.id: card}, {card.id: card})
    async with open_registry(cards, settings) as registry:
        yield Local(registry, card.id)
